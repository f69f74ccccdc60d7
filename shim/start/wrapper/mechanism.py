"""By which mechanism a container's filter lets calls through, and what that changes in config.json.

Pure but for the program that crun is given, which is kept in a directory of ours.
"""

from shim.errors import LeftAlone, ShimError
from shim.profile.evaluate import evaluate
from shim.start.session import COMPARED, WHEN_MADE
from shim.start.spec import RAW_BPF, Spec
from shim.startjson import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from shim.host.runtimes import Runtime

_ENOSYS = 38
NOTHING = "no rule leaves a call out that the default refuses by EPERM"


class SpecChange:
    """The new config.json, by which mechanism, and what the audit log says of it.

    ``calls`` are those that the container's own filter would deny by its default only; ``refused``
    those that it would refuse by EPERM, and no rule names.
    """

    __slots__ = ("calls", "facts", "mechanism", "refused", "spec")

    def __init__(self, mechanism: str, spec: Spec, facts: "dict[str, object]") -> None:
        self.calls: dict[str, int] = {}
        self.refused: dict[str, int] = {}
        self.mechanism = mechanism
        self.spec = spec
        self.facts = facts


def change(
    spec: Spec, calls: "dict[str, int]", runtime: "Runtime", *, unknown: bool = False
) -> SpecChange:
    """Return the change by the cheapest mechanism that really works with ``runtime``.

    With ``unknown`` calls that no rule names get ENOSYS as well, where they would get EPERM.

    The mechanism is ``name``, ``raw-bpf`` or ``filter-injection``, and then ``spec`` is as it was:
    the hook has to be entered. It is empty where no call needs anything; ``reason`` among the facts
    says why. ShimError: the config cannot be understood.
    """
    if _has_own_program(spec):
        # Of an earlier start: crun would load that one, whatever the profile says by now.
        without = spec.remove(("annotations", RAW_BPF))
        made = change(without, calls, runtime, unknown=unknown)
        if made.spec.text == spec.text:
            return SpecChange("", spec, {"reason": "the program is in its place already"})
        return made
    denied, reason = spec.needing(calls, runtime.path)
    refused = _refused(spec, runtime) if unknown else {}
    if not denied and not refused:
        return SpecChange("", spec, {"reason": reason or NOTHING})
    annotations = spec.config.get("annotations") or {}
    by_name = _knows_all(runtime, denied) and RAW_BPF not in annotations
    enosys = _nameable(spec, refused, runtime) if refused and by_name else []
    by_name = by_name and (bool(enosys) or not refused)
    moved = by_name and bool(denied) and _moves_line(spec.config, runtime)
    made = (
        _named(spec, list(denied), enosys)
        if by_name and not moved
        else _programmed(spec, denied, runtime, refused)
    )
    if moved:
        made.facts["reason"] = "by name runc would refuse other calls in another way"
    made.calls, made.refused = denied, refused
    return made


def _refused(spec: Spec, runtime: "Runtime") -> "dict[str, int]":
    from shim.start.enosys_calls import refused

    return refused(spec, runtime)


def _nameable(spec: Spec, refused: "dict[str, int]", runtime: "Runtime") -> "list[str]":
    """Return the names by which all of ``refused`` get ENOSYS under ``runtime``; none: they do not.

    What its libseccomp does not know is above runc's line, where that has one.
    """
    from shim.start.enosys_calls import has_line, known, seccomp

    names = known(refused, runtime)
    return names if len(names) == len(refused) or has_line(seccomp(spec), runtime) else []


def _has_own_program(spec: Spec) -> bool:
    """Tell whether the raw program is ours: then the hook that looks for it knows its SHA-256."""
    annotations = spec.config.get("annotations")
    data = annotations.get(RAW_BPF) if isinstance(annotations, dict) else None
    if not isinstance(data, str):
        return False
    from binascii import a2b_base64

    from shim.start.digest import sha256

    try:
        digest = sha256(a2b_base64(data))
    except ValueError:
        return False
    entries = spec.hooks().get("poststart", [])
    told = [args for entry in entries if isinstance(args := entry.get("args"), list)]
    return any(
        ["--sha256", digest] in (args[at : at + 2] for at in range(len(args))) for args in told
    )


def _knows_all(runtime: "Runtime", names: "dict[str, int]") -> bool:
    from shim.catalog import kernel_injected
    from shim.host.runtimes import knows

    catalogue = kernel_injected()
    return all(
        name in catalogue and knows(runtime.libseccomp, catalogue[name].libseccomp)
        for name in names
    )


def _moves_line(config: "dict[str, Any]", runtime: "Runtime") -> bool:
    """Tell whether a name more moves runc's ENOSYS line, so that calls in between get EPERM.

    runc answers ENOSYS above the largest number that a profile names
    (shim/profile/enosys_line.py). What we add is below 424, and a libseccomp that knows it knows
    all of LATER: one of those, and the line is beyond on every architecture that has our calls.
    crun has no such line.
    """
    from shim.catalog.data import LATER

    seccomp = config["linux"]["seccomp"]
    if runtime.program.startswith("crun ") or seccomp.get("defaultErrnoRet") == _ENOSYS:
        return False
    names = (name for rule in seccomp.get("syscalls") or () for name in rule.get("names") or ())
    return set(LATER).isdisjoint(names)


def _named(spec: Spec, names: "list[str]", enosys: "list[str]") -> SpecChange:
    """Put the calls into the profile by name, as its first rules: no other decides on them."""
    new, where = spec, ("linux", "seccomp", "syscalls")
    facts: dict[str, object] = {}
    if enosys:
        rule = {"names": enosys, "action": "SCMP_ACT_ERRNO", "errnoRet": _ENOSYS}
        new = new.add(where, dumps(rule))
        facts["enosys"] = ",".join(enosys)
    if names:
        new = new.add(where, dumps({"names": names, "action": "SCMP_ACT_ALLOW"}))
        facts["syscall"] = ",".join(names)
        facts["before"] = spec.config["linux"]["seccomp"]["defaultAction"]
        facts["after"] = "SCMP_ACT_ALLOW"
    for name in names:
        verdict, reason = evaluate(new.config["linux"]["seccomp"], name)
        if verdict not in ("allows", "no-x86-64"):
            raise ShimError(f"with a rule for it {name} is still not allowed: {reason}")
    more = "two more rules" if names and enosys else "one more rule"
    facts["proof"] = f"{more}, for calls that no other rule names"
    return SpecChange("name", new, facts)


def _programmed(
    spec: Spec, calls: "dict[str, int]", runtime: "Runtime", refused: "dict[str, int]"
) -> SpecChange:
    """Return crun the finished program; where that does not go, leave it to the hook."""
    from shim.start.digest import sha256
    from shim.start.wrapper.rawbpf import program, unfit

    config = spec.config
    reason = unfit(config, runtime)
    if reason:
        return SpecChange("filter-injection", spec, {"reason": f"no raw program: {reason}"})
    try:
        made, kept = program(config["linux"]["seccomp"], calls, runtime, refused)
    except LeftAlone as nothing:
        return SpecChange("", spec, {"reason": str(nothing)})
    except ShimError as error:
        return SpecChange("filter-injection", spec, {"reason": f"no raw program: {error}"})
    from binascii import b2a_base64

    data = b2a_base64(made, newline=False).decode()
    there = (config.get("annotations") or {}).get(RAW_BPF)
    if there == data:
        return SpecChange("", spec, {"reason": "the program is in its place already"})
    if there is not None:
        # Somebody's own filter takes the profile's place. Only when it is loaded can it be seen.
        return SpecChange(
            "filter-injection", spec, {"reason": "it brings a raw program of its own"}
        )
    facts: dict[str, object] = {"enosys": ",".join(refused)} if refused else {}
    if calls:
        default = config["linux"]["seccomp"]["defaultAction"]
        facts |= {"syscall": ",".join(calls), "before": default, "after": "ALLOW"}
    facts |= {
        "length_after": len(made) // 8,
        "sha256_after": sha256(made),
        "proof": COMPARED + (WHEN_MADE if kept else ""),
    }
    return SpecChange("raw-bpf", spec.add(("annotations",), f'"{RAW_BPF}":"{data}"'), facts)
