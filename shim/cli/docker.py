"""``seccomp-shim docker``: any docker command line, with what its containers need added.

``main`` is called before the other verbs are even imported: most commands only pass through.
"""

import os
import sys

from shim.engines.docker import commandline, passthrough
from shim.errors import ShimError, printable
from shim.start.wrapper.exec_runtime import exec_runtime

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from shim.engines.docker.rewrite import CommandPlan
    from shim.profile.edit import When

HELP = """\
usage: seccomp-shim docker [--when WHEN] [--dry-run] [--quiet] DOCKER WORDS...

Run docker. To run, create, compose up, run, create, scale and watch, what keeps
their containers alive is added: the runtime seccomp-shim where the daemon has
it registered, else the profile the container would have had anyway, augmented.
One line on standard error says what was added, or what should have been but
could not. Nothing can be added to a build or a service of a swarm: of these it
is said where their containers lack something. Everything else goes to docker as
it is; so does a command line of which it cannot be told what docker would do.

  alias docker='seccomp-shim docker'   in ~/.bashrc, to use it all day

  --when WHEN   needed (the default): if the daemon's kernel lets a profile deny
                the calls that it makes processes call by itself; present: if it
                has them; always: without a look at it
  --dry-run     print the command line that would be run, and what is in the
                files it names as a diff; run nothing
  --quiet       say nothing
"""


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verb to the list; its command line is ``main``'s to read."""
    verbs.add_parser("docker", help="run docker, with what its containers need added")


class _Ours:
    """Our own options, which come before docker's words."""

    __slots__ = ("dry_run", "help", "quiet", "when")

    def __init__(self) -> None:
        self.dry_run = self.help = self.quiet = False
        self.when: When = "needed"


def main(words: list[str]) -> int:
    """Become docker; gives an exit status only where that was not asked for or does not work."""
    try:
        ours, words = _split(words)
        if ours.help:
            return _help(words, ours)
        return _run(passthrough.real_docker(), words, ours)
    except passthrough.NoDockerError as error:
        return _failed(error, 127)
    except passthrough.SpentError as error:
        return _failed(error, 125)
    except ShimError as error:
        return _failed(error, 2)
    except KeyboardInterrupt:
        return 130


def _split(words: list[str]) -> tuple[_Ours, list[str]]:
    """Take our own options off docker's words. ShimError: they are wrong."""
    ours = _Ours()
    at = 0
    while at < len(words):
        name, equals, value = words[at].partition("=")
        if name == "--when":
            from shim.cli.when_option import VALUES

            if not equals:
                at += 1
                value = words[at] if at < len(words) else ""
            if value not in VALUES:
                raise ShimError("must be one of " + ", ".join(VALUES), subject="--when")
            ours.when = value  # type: ignore[assignment]  # just checked
        elif words[at] in ("--dry-run", "--quiet", "--help"):
            setattr(ours, words[at][2:].replace("-", "_"), True)
        else:
            break
        at += 1
    return ours, words[at:]


def _run(real: str, words: list[str], ours: _Ours) -> int:
    """Become what ``words`` become, or show it."""
    try:
        found = commandline.find(words)
    except ShimError as error:
        found = None
        _say(f"docker goes as it is: {error}", ours)
    if found is not None:
        plan = _plan(real, words, found, ours)
        if plan.uncovered and not ours.dry_run and _refuses():
            return _failed(
                ShimError(plan.line, hint="not run: the settings say on_error: deny"), 125
            )
        _say(plan.line, ours)
        words = plan.words
    if ours.dry_run:
        return _show([real, *words], plan.diff if found is not None else "")
    try:
        exec_runtime(real, [real, *words])
    except OSError as error:
        return _failed(ShimError(f"cannot be started: {error.strerror}", subject=real), 126)


def _plan(
    real: str, words: list[str], found: commandline.StartingCommand, ours: _Ours
) -> "CommandPlan":
    """Plan what was found, and have what it names in place. No fault stands in docker's way."""
    from shim.engines.docker import compose, indirect, rewrite

    plans = {"run": rewrite.plan, "create": rewrite.plan, "compose": compose.plan}
    plan = plans.get(found.command, indirect.plan)
    try:
        planned = plan(real, words, found, ours.when)
        if not ours.dry_run:
            rewrite.prepare(planned)
        return planned
    except passthrough.SpentError:
        raise
    except Exception as error:
        line = f"docker {found.command} goes as it is: {_error_line(error)}"
        return rewrite.CommandPlan(words, line, uncovered=True)


def _show(command: list[str], diff: str) -> int:
    import shlex

    from shim.cli.output import write_diff

    try:
        print(shlex.join(command), flush=True)
        write_diff(diff)
    except BrokenPipeError:  # the reader has seen enough; nothing is left for exit to flush
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _refuses() -> bool:
    """Tell whether the admin would rather have no container than one that may be killed."""
    from shim import config

    return bool(config.load()[0]["on_error"] == "deny")


def _say(line: str, ours: _Ours) -> None:
    if line and not ours.quiet:
        _write_error(f"seccomp-shim: {printable(line)}\n")


def _write_error(text: str) -> None:
    """Write to standard error; one that is closed or full is no reason not to run docker."""
    try:  # noqa: SIM105 - contextlib would be one more import for what passes through
        os.write(2, text.encode())
    except OSError:
        pass


def _error_line(error: Exception) -> str:
    if isinstance(error, ShimError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return f"{type(error).__name__}: {error}"


def _help(words: list[str], ours: _Ours) -> int:
    """Show docker's help, which an alias asks for, and then ours, beside its standard output."""
    try:
        real = passthrough.real_docker()
        code = os.spawnv(os.P_WAIT, real, [real, "--help", *words])  # noqa: S606 - the user's own
    except passthrough.NoDockerError:
        code = 0
    if not ours.quiet:
        _write_error(f"\n{HELP}")
    return code


def _failed(error: ShimError, code: int) -> int:
    _write_error(f"seccomp-shim docker: {error}\n")
    return code
