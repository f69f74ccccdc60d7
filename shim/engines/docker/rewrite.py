"""The least change of a ``docker run`` or ``docker create`` that keeps its container alive."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from shim import log
from shim.engines.docker import client_files, commandline, readonce
from shim.engines.docker.api import ask
from shim.engines.docker.choose import Choice, Daemon, Request, choose, seccomp_option
from shim.errors import ShimError
from shim.profile.diff import unified
from shim.profile.document import MAX_BYTES
from shim.profile.edit import When

_HELP_SECONDS = 10
_NO_FILE = (None, "", "unconfined", "builtin")


@dataclass(frozen=True)
class CommandPlan:
    """What will be run and why.

    ``words`` are docker's arguments; ``line`` is what to say, empty where all is well without us;
    ``files`` (path: text) must be kept before docker runs, and ``diff`` shows what is in them;
    ``choices`` are those that change something, by the name of what they change; ``uncovered``
    tells that something should be changed and cannot be.
    """

    words: list[str]
    line: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    diff: str = ""
    choices: Mapping[str, Choice] = field(default_factory=dict)
    uncovered: bool = False


@dataclass(frozen=True)
class Addition:
    """An option of run (``name`` and ``value``), the files that it names and their diff."""

    name: str
    value: str
    files: Mapping[str, str] = field(default_factory=dict)
    diff: str = ""


def plan(
    real: str, words: list[str], found: commandline.StartingCommand, when: When
) -> CommandPlan:
    """Plan a run or create. ShimError: it cannot be told what it would be."""
    asked = _read(real, words, found)
    if asked is None:
        return CommandPlan(words)
    command = f"docker {found.command}"
    daemon = ask(real, words[: found.verb])
    request = requested(asked.security_opt, asked.privileged, asked.runtime)
    choice = choose(daemon, request, when)
    if choice.action == "nothing":
        line = f"{command} goes as it is: {choice.reason}" if choice.uncovered else ""
        return CommandPlan(words, line, uncovered=choice.uncovered)
    add = addition(real, daemon, request, choice)
    option = [f"--{add.name}", add.value]
    return CommandPlan(
        [*words[: asked.end], *option, *words[asked.end :]],
        f"{command} {' '.join(option)}: {choice.reason}",
        add.files,
        add.diff,
        {command: choice},
    )


def prepare(planned: CommandPlan) -> None:
    """Keep the files, then log each choice. ShimError, OSError: it must not be carried out."""
    for path, text in planned.files.items():
        client_files.keep(path, text)
    for what, choice in planned.choices.items():
        fields = {**choice.logged(), "reason": f"{what}: {choice.reason}"}
        # Not "adjusted": docker may refuse it yet, and the runtime logs what it does itself.
        # Not by structlog: its import alone takes longer than all else here.
        log.append(log.render("info", "requested", fields), log.path())


def requested(
    options: Sequence[str], privileged: bool, runtime: str, directory: str = ""
) -> Request:
    """Return what is asked of a container, with its security options as the daemon gets them.

    The client reads the file that they name; ``directory`` is what its path is relative to.
    ShimError, OSError: there is no reading it. SpentError: what was read cannot be put back.
    """
    asked = seccomp_option(options)
    if asked in _NO_FILE:
        return Request(list(options), privileged, runtime, "the daemon's own profile")
    path = os.path.join(directory, asked or "")
    text = readonce.read(path, MAX_BYTES).decode(errors="surrogateescape")
    return Request([*options, f"seccomp={text}"], privileged, runtime, path)


def addition(real: str, daemon: Daemon, request: Request, choice: Choice) -> Addition:
    """Return what carries out ``choice``. ShimError: this client cannot."""
    if choice.action == "runtime":
        return Addition("runtime", choice.value)
    if os.path.basename(os.path.realpath(real)) == "snap":
        raise ShimError("a docker from a snap cannot read the profile to add", subject=real)
    path = client_files.name(choice.value, "profile")
    before, after = _before(daemon, request), json.loads(choice.value)
    diff = unified(_pretty(before), _pretty(after), request.profile_name)
    return Addition("security-opt", f"seccomp={path}", {path: choice.value}, diff)


def _read(
    real: str, words: list[str], found: commandline.StartingCommand
) -> commandline.Asked | None:
    """Read the options; those that no table has, with the help of the client's own help."""
    try:
        return commandline.read(words, found.begin)
    except commandline.UnknownOptionError:
        done = subprocess.run(
            [real, found.command, "--help"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=_HELP_SECONDS,
        )
        options = commandline.with_help(commandline.RUN, done.stdout)
        return commandline.read(words, found.begin, options)


def _before(daemon: Daemon, request: Request) -> object:
    asked = seccomp_option(request.security_opt)
    if asked and asked != "builtin":
        return json.loads(asked)
    own = daemon.configured_profile if daemon.configured and not asked else daemon.builtin
    return own.tree if own else {}


def _pretty(tree: object) -> str:
    return json.dumps(tree, indent=2) + "\n"
