"""The runtime wrapper's part for what starts a process: create, run, exec and restore.

The shell part (hooks/seccomp-shim-runtime) has found the real runtime. For create, run and restore
it waits for us and then executes it; for exec we become it ourselves.
"""

import gc
import sys

from shim import abi, config
from shim import lightos as os
from shim.errors import ShimError, printable
from shim.start.session import Start, needed_calls
from shim.start.wrapper.argv import CommandLine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from shim.host.runtimes import Runtime
    from shim.start.inject.waiting import Waiting
    from shim.start.spec import Spec
    from shim.start.wrapper.mechanism import SpecChange

GO, REFUSED, EXEC = 0, 4, 6
_HOOK_SECONDS = 60


def main(argv: "list[str]", becoming: bool) -> int:
    """Prepare one start: GO for the real runtime to be executed, REFUSED when that was said.

    With ``becoming`` this process is going to be the real runtime: what an exec needs. EXEC asks
    for that, where the shell part could not tell that it is one.
    ``argv`` is the directory of our executables, the real runtime, the settings' path, the test
    syscall asked for (0: none), the process that is going to be the runtime, and its own command
    line. With ``settings`` and the settings' path alone they are printed for the shell part.
    """
    gc.disable()  # a few milliseconds of life leave nothing worth collecting
    if argv[0] == "settings":
        from shim import configfile

        sys.stdout.write(configfile.lines(config.load(argv[1])[0]))
        sys.stdout.flush()
        return 0
    directory, real, path, test_syscall, caller, *words = argv
    line = CommandLine(words)
    settings, doubt = config.load(path)
    start = Wrapped(settings, line, real)
    try:
        number = int(test_syscall) if test_syscall.isdigit() else -1
        if number and number not in abi.TEST_SYSCALLS:
            raise ShimError(f"cannot use --test-syscall {test_syscall}")
        if doubt:
            start.log("config", level="error", reason=doubt)
        number = number or settings["test_syscall"]
        calls, start.facts["state"], reason = needed_calls(number)
        if not calls:
            _note_idle()
        if line.verb == "exec":
            if not becoming:
                return EXEC
            _exec(real, words, line, settings, calls, start.unknown)
        elif line.verb in ("create", "run"):
            start.arrange(calls, reason, directory, _options(path, number), int(caller))
        elif line.verb == "restore":
            start.log("left-alone", reason="what is restored has the filter of its checkpoint")
    except Exception as error:  # a fault of ours must not be what stops a container
        return start.fail(error)
    return GO


class Wrapped(Start):
    """One start through the wrapper: whose config.json is still to be read by the runtime."""

    __slots__ = ("document", "line", "real")

    def __init__(self, settings: "dict[str, Any]", line: CommandLine, real: str) -> None:
        super().__init__(settings)
        self.line = line
        self.real = real
        bundle = os.path.abspath(line.options.get("bundle", "."))
        # crun looks for another file from where it is called, not from the bundle.
        other = line.options.get("config", "config.json")
        inside = other == "config.json"
        self.document = os.path.join(bundle, other) if inside else os.path.abspath(other)
        self.facts = {
            "mechanism": "",
            "container": line.container(),
            "bundle": bundle,
            "runtime": real,
            "kernel": os.uname().release,
        }

    def fail(self, error: Exception) -> int:
        """Log why nothing could be done; say it only where that refuses the start.

        A runtime's standard error is often the container's own: what is no refusal is not for it.
        """
        from shim.start.wrapper import enginelog

        reason = self.log_failure(error)
        if not self.deny:
            enginelog.tell(self.line.options, "warning", f"container left as it was: {reason}")
            return GO
        message = f"start refused (on_error: deny): {reason}"
        enginelog.tell(self.line.options, "error", message)
        sys.stderr.write(f"seccomp-shim: {printable(message)}\n")
        sys.stderr.flush()
        return REFUSED

    def tracing(self) -> Start:
        """Return what the tracer is to log: as a hook would, the start known from its state."""
        start = Start(self.settings)
        start.facts |= {"state": self.facts["state"], "runtime": self.real}
        start.refused = self.refused
        return start

    def arrange(
        self,
        calls: "dict[str, int]",
        reason: str,
        directory: str,
        options: "list[str]",
        caller: int,
    ) -> None:
        """Change the config.json so that the container's filter lets ``calls`` through.

        ``reason`` is why there are none, ``directory`` that of our executables, ``options`` what
        they are to be called with, ``caller`` who will be the runtime. ShimError, OSError: nothing
        was changed.
        """
        if not calls and not self.unknown:
            self.log("left-alone", reason=reason)
            return
        if not os.path.exists(self.document):
            return  # the runtime will say what is wrong with it
        from shim import atomic
        from shim.host.runtimes import about
        from shim.start.hook_entry import enter, hook
        from shim.start.spec import read, read_text
        from shim.start.wrapper.mechanism import change

        spec = read(self.document)
        text = spec.text
        runtime = about(self.real)
        made = change(spec, calls, runtime, unknown=self.unknown)
        if not made.mechanism:
            new = made.spec.proved()
            self.facts |= made.facts
            self.log("left-alone")
            if new != text:  # a program of ours that the profile has no use for any more
                data = new.encode()
                atomic.replace(self.document, data, text.encode(), lambda: None, durable=False)
            return
        self.refused = made.refused
        tracer, entered = None, made.spec
        limit = spec.limit_below(runtime)
        if made.mechanism == "filter-injection":
            if limit:
                raise ShimError(
                    f"no hook runs under the container's limit {limit}, which crun sets"
                )
            tracer, entered = self._await_hook(made, runtime, directory, options, caller)
        if limit:
            made.facts["limits"] = f"{limit}: no look after the start"
        else:
            more = [*options, "--mechanism", made.mechanism]
            if "sha256_after" in made.facts:
                more += ["--sha256", str(made.facts["sha256_after"])]
            entered = enter(entered, "poststart", hook(f"{directory}/seccomp-shim-verify", more))
        new = entered.proved()

        def log() -> None:
            if made.mechanism != "filter-injection":  # the tracer logs what it does
                self.facts |= {"mechanism": made.mechanism, **made.facts}
                self.log("adjusted")

        if new != text:
            try:
                atomic.replace(self.document, new.encode(), text.encode(), log, durable=False)
            except ShimError:
                # Several starts of one bundle at once all write the same.
                if read_text(self.document) != new:
                    raise
                log()
        if tracer:
            tracer.engage()

    def _await_hook(
        self,
        made: "SpecChange",
        runtime: "Runtime",
        directory: str,
        options: "list[str]",
        caller: int,
    ) -> "tuple[Waiting | None, Spec]":
        """Enter the hook, and have a tracer wait for it.

        runc 1.0 and crun 1.0 know the newer stage; prestart, which all know, may end one day.
        """
        from shim import runtime_directory
        from shim.start.hook_entry import enter, has, hook
        from shim.start.inject.waiting import Waiting

        place, where = runtime_directory.directory("start")
        tracer = None
        if place >= 0:
            try:
                tracer = Waiting(self.tracing(), made.calls, caller, place)
            except OSError:
                tracer = None  # before Linux 5.3 there is no pidfd_open: the hook does it all
            if where != f"{runtime_directory.ROOTS}/start":
                options = [*options, "--rendezvous", where]
        entry = hook(f"{directory}/seccomp-shim-hook", options)
        # The tracer answers in time or dies; should it ever do neither, nobody waits for good.
        entry["timeout"] = _HOOK_SECONDS
        if has(made.spec, entry):  # the engine's, or of an earlier start
            return tracer, made.spec
        newer = runtime.is_at_least("runc", "1.0.0") or runtime.is_at_least("crun", "1.0")
        return tracer, enter(made.spec, "createRuntime" if newer else "prestart", entry)


def _exec(
    real: str,
    words: "list[str]",
    line: CommandLine,
    settings: "dict[str, Any]",
    calls: "dict[str, int]",
    unknown: bool,
) -> None:
    from shim.start.wrapper.exec_runtime import exec_runtime

    argv = [real, *words]
    container = line.container()
    # Without a container the runtime prints its help, or what is wrong.
    if not container or not (calls or unknown):
        exec_runtime(real, argv)
    from shim.start.wrapper.exec import run

    run(real, argv, line.options.get("root", ""), container, settings, calls, sure=line.sure)


def _options(path: str, test_syscall: int) -> "list[str]":
    """Return what our hooks are to be called with so that they see what we see."""
    options = ["--config", path] if path != config.PATH else []
    return [*options, "--test-syscall", str(test_syscall)] if test_syscall else options


def _note_idle() -> None:
    from shim.host.cache import facts, note_idle

    note_idle(facts())
