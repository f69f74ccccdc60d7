"""The OCI prestart or createRuntime hook: decide, start the tracer, return.

Called by the runtime with the container's state (JSON) on standard input, in the runtime's own
namespaces, after the container's init exists and before it loads its filter.
"""

import gc

from shim import config
from shim import lightos as os
from shim.errors import ShimError
from shim.start.hooks import parse
from shim.start.session import Start, complain, needed_calls

USAGE = "usage: seccomp-shim-hook [--config FILE] [--test-syscall NR] < state.json"
# What the front says besides: limits that it could not raise; where it has looked for a tracer.
_OPTIONS = ("--config", "--test-syscall", "--limits", "--rendezvous")


def main(argv: "list[str]", runtime: int = 0) -> int:
    """Run the hook and return its exit status: 0, or 1 where the start is refused.

    ``runtime`` is the process that called the hook, by default our parent.
    """
    gc.disable()  # a few milliseconds of life leave nothing worth collecting
    try:
        options = parse(argv, _OPTIONS, USAGE)
    except ShimError as error:
        return complain(str(error), 2)
    settings, doubt = config.load(options.get("--config", config.PATH))
    test_syscall = int(options.get("--test-syscall", "0")) or settings["test_syscall"]
    start = Start(settings)
    try:
        if limits := options.get("--limits"):
            start.facts["limits"] = f"cannot be raised: {limits}"
        start.read_state()  # before all that may fail: crun has to get it written (hooks/guard)
        if doubt:
            start.log("config", level="error", reason=doubt)
        return _decide(start, test_syscall, runtime or os.getppid())
    except Exception as error:  # a fault of ours must not be what stops a container
        return start.fail(error)


def _decide(start: Start, test_syscall: int, runtime: int) -> int:
    """Find out whether this container needs an adjustment and, if so, have it made."""
    needed, start.facts["state"], reason = needed_calls(test_syscall)
    if not needed and not start.unknown:
        return _leave(start, reason)
    from shim.start.inject.tracer import Tracer

    tracer = Tracer(lambda order, answer, _name: _trace(start, order, answer), start.pin())
    from shim.start.spec import read
    from shim.startjson import dumps

    spec = read(os.path.join(str(start.facts["bundle"]), "config.json"))
    start.facts["runtime"] = caller = _runtime(runtime)
    denied: dict[str, int] = {}
    if needed:
        denied, reason = spec.needing(needed, caller)
    if start.unknown:
        from shim.host.runtimes import about
        from shim.start.enosys_calls import refused

        start.refused = refused(spec, about(caller))
    if not denied and not start.refused:
        return _leave(start, reason)
    raw_bpf = spec.takes_program(caller)
    order = {"calls": denied, "refused": start.refused, "runtime": caller, "raw_bpf": raw_bpf}
    tracer.seize(dumps(order).encode())
    return 0


def _leave(start: Start, reason: str) -> int:
    start.log("left-alone", reason=reason)
    return 0


def _trace(start: Start, order: int, answer: int) -> int:
    """Be the tracer: wait for what the hook decides, and follow the init if it has to be."""
    # Its imports are half of what an injection adds: it makes them while the hook decides.
    from shim.host import ptrace  # noqa: F401
    from shim.start.inject.tracer import trace
    from shim.startjson import loads

    text = os.read(order, 65536)
    if not text:
        return 0  # nothing is to be done, or the hook has failed
    document = loads(text)
    start.facts["runtime"] = document["runtime"]
    start.refused = document["refused"]

    def tell_hook(message: str) -> None:
        os.write(answer, message.encode())
        os.close(answer)

    return trace(start, document["calls"], tell_hook, raw_bpf=document["raw_bpf"])


def _runtime(parent: int) -> str:
    """Return the path of the runtime that called us, or its name where it has no path."""
    from shim.host import processes

    try:
        path = processes.link(parent, "exe")
        if os.path.isfile(path):
            return path
    except OSError:
        pass  # without CAP_SYS_PTRACE this is as closed to us as the init itself
    # crun runs from a sealed copy of itself that no path leads to (CVE-2019-5736).
    return processes.name(parent)
