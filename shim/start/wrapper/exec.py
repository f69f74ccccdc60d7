"""``RUNTIME exec``: the filter of a process that joins a running container.

No hook runs for such a process. crun loads the program that it kept when the container was created,
so that one is made longer on disk. runc compiles the container's profile once more: its new process
is followed, as a hook follows a container's init, until it loads the result.
"""

from shim import abi
from shim import lightos as os
from shim.errors import LeftAlone, ShimError
from shim.host import processes
from shim.start.inject.tracer import FOLLOW_SECONDS, SEIZED, Tracer, give_up_after, let_go
from shim.start.session import Start
from shim.start.wrapper.exec_runtime import exec_runtime

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from shim.host.process_tree import Family, Member
    from shim.start.spec import Spec

_YAMA = "/proc/sys/kernel/yama/ptrace_scope"


def run(
    real: str,
    argv: "list[str]",
    root: str,
    container_id: str,
    settings: "dict[str, Any]",
    calls: "dict[str, int]",
    *,
    sure: bool = True,
) -> "NoReturn":
    """Become the runtime ``real`` with the whole command line ``argv``, whose verb is exec.

    ``root`` and ``container_id`` are what the command line says, ``root`` empty if nothing, and
    not ``sure`` where an option that we do not know may have the id for its value;
    ``calls`` (name to number) are to be let through where the container's profile denies them by
    its default only. What keeps them from that is logged, or raised where the admin chose to
    refuse. OSError: ``real`` cannot be executed.
    """
    start = Exec(settings)
    start.facts |= {"container": container_id, "runtime": real, "kernel": os.uname().release}
    try:
        if calls or start.unknown:
            start.prepare(root, container_id, calls, sure=sure)
    except Exception as error:  # a fault of ours must not be what stops an exec
        if start.deny:
            raise
        start.fail(error)
    exec_runtime(real, argv)


class Exec(Start):
    """One exec: its settings and what is known of it, for the log."""

    __slots__ = ()

    def __init__(self, settings: "dict[str, Any]") -> None:
        super().__init__(settings)
        self.facts["process"] = "exec"

    def fail(self, error: Exception) -> int:
        """Log why nothing could be done; a process that is refused says so in its own place."""
        reason = self.log_failure(error)
        if self.deny:
            processes.tell(self.pinned, f"exec refused (on_error: deny): {reason}")
        return 0

    def prepare(self, root: str, container: str, calls: "dict[str, int]", *, sure: bool) -> None:
        """See to it that the runtime's new process lets ``calls`` through."""
        from shim.start.wrapper import container_state

        real = str(self.facts["runtime"])
        try:
            path, cruns = container_state.directory(root, container, real)
        except ShimError:
            if (self.deny and not sure) or _knows_container(real, root, container):
                raise
            return  # the runtime says so itself, in its own words
        if cruns:
            self._lengthen(path, calls)
            return
        spec, bundle = container_state.runc_config(path)
        self.facts["bundle"] = bundle
        denied, _ = spec.needing(calls, real)
        if self.unknown:
            self.refused = self._unnamed(spec)
        if denied or self.refused:
            _Following(self, denied).begin()

    def _lengthen(self, path: str, calls: "dict[str, int]") -> None:
        """Make the program longer that crun has kept in ``path``, if that is needed.

        The program does not show a denial by a name that crun's libseccomp lacks: crun drops it.
        The profile does, of which crun keeps a copy beside the program (libcrun_copy_config_file)
        and reads that one for each exec; what has become of the bundle meanwhile is of no account.
        """
        from shim.start.inject.augment import AlreadyLet, augment
        from shim.start.wrapper import container_state

        old = container_state.crun_filter(path)
        if not old:
            return
        try:
            if not self.unknown:
                augment(old, calls)  # most often it is long enough: nothing else need be read then
            from shim.start.spec import read

            spec = read(f"{path}/config.json")
            denied, named, _ = spec.denied_by_default(calls, raw_bpf=True)
            if self.unknown:
                self.refused = self._unnamed(spec)
            if not denied and not named and not self.refused:
                return
            new, facts = augment(old, denied | named, self.refused)
        except AlreadyLet:
            return
        except LeftAlone as reason:
            self.log("left-alone", reason=str(reason))
            return
        self.facts |= {"mechanism": "raw-bpf", **facts}
        self.log("adjusting")
        container_state.replace_crun_filter(path, new)
        self.log("adjusted")

    def _unnamed(self, spec: "Spec") -> "dict[str, int]":
        from shim.host.runtimes import about
        from shim.start.enosys_calls import refused

        return refused(spec, about(str(self.facts["runtime"])))


class _Following:
    """What a tracer does that holds the process which becomes the runtime, and all it starts."""

    __slots__ = ("calls", "member", "pinned", "runtime", "start")

    def __init__(self, start: Exec, calls: "dict[str, int]") -> None:
        self.start = start
        self.calls = calls
        self.member: Member | None = None
        self.runtime = os.getpid()
        self.pinned = processes.pin(self.runtime)

    def begin(self) -> None:
        """Return once this process is held; ShimError if it is not.

        The tracer is init's child: the runtime must have no child of ours.
        """
        tracer = Tracer(self._trace, self.pinned, orphan=True)
        os.close(self.pinned)
        if os.path.exists(_YAMA):
            _let_trace(tracer.pid)
        tracer.seize(b"g")

    def _trace(self, go: int, answer: int, _name: str) -> int:
        from shim.host.process_tree import Family

        if not os.read(go, 1):
            return 0  # who is to become the runtime is gone
        try:
            family = Family(self.runtime, abi.PTRACE_O_EXITKILL if self.start.deny else 0)
        except OSError as error:
            os.write(answer, f"cannot trace the runtime: {error}".encode())
            return 0
        give_up_after(FOLLOW_SECONDS)
        if not processes.is_there(self.pinned):
            family.release()  # it has ended in between, and its number is another's
            return 0
        self.start.pinned = self.pinned
        os.write(answer, SEIZED.encode())
        os.close(answer)
        try:
            self._follow(family)
            give_up_after(0)
            if self.start.deny:
                # Were the one that we follow let go first, our death could still end its runtime.
                family.release(but=self.start.pid)
        except BaseException as error:
            self._fail(error, family)
            return 0
        if self.member is not None:
            let_go(self.member)
        self.start.settle()
        return 0

    def _follow(self, family: "Family") -> None:
        from shim.host.ptrace import EndedError

        # The runtime starts beside us: what is imported now costs it nothing.
        from shim.start.inject.follow import follow

        try:
            member = family.threaded_child(_is_runc_init)
            self.start.pid = self.start.facts["pid"] = member.pid
            self.start.pinned = processes.pin(member.pid)  # stopped: it cannot go
            self.member = member
            follow(member, self.calls, self.start.log, refused=self.start.refused)
        except (LeftAlone, EndedError) as reason:
            self.start.log("left-alone", reason=str(reason))
        except ProcessLookupError:  # killed while it was stopped
            self.start.log("left-alone", reason="the process ended before it loaded a filter")

    def _fail(self, error: BaseException, family: "Family") -> None:
        """Leave all as it is, or end what would run without the adjustment."""
        fault = error if isinstance(error, Exception) else ShimError(repr(error))
        give_up_after(0)
        if not self.start.deny:
            # The tracer's end lets go of all at once; to write the line may take its time.
            if os.fork() == 0:
                self.start.fail(fault)
            return
        # Of the process that is to be refused or, as long as there is none, of the runtime.
        self.start.fail(fault)
        if processes.kill(self.start.pinned) and self.member is not None:
            family.release()  # the runtime shall tell of it; without a member it ends with us


def _knows_container(real: str, root: str, container: str) -> bool:
    """Ask the runtime whether there is such a container: what it cannot find cannot be joined."""
    from shim.host.runtimes import printed

    options = ["--root", root] if root else []
    try:
        return bool(printed(real, *options, "state", container))
    except OSError:
        return True  # no answer is none to rely on


def _is_runc_init(pid: int) -> bool:
    """Tell whether a process is ``runc init``, at its first thread the container's own.

    The C part of runc clones itself twice before the last of them goes on to the Go runtime
    (libcontainer/nsenter/nsexec.c): by its first thread that one shows itself, after 150 calls.
    """
    try:
        return processes.command_line(pid)[1:2] == ["init"]
    except (FileNotFoundError, ProcessLookupError):
        return False


def _let_trace(tracer: int) -> None:
    """Let ``tracer``, which is none of our ancestors, trace us where Yama asks for that."""
    from shim.host.libc import prctl

    try:  # noqa: SIM105 - contextlib is an import that every exec would pay for
        prctl(abi.PR_SET_PTRACER, tracer)
    except OSError:
        pass  # Yama is not at work after all
