"""What is to be changed in a container's config.json so that its filter lets calls through.

Pure but for the program that crun is given, which is kept in a folder of ours.
"""

from shim.errors import ShimError
from shim.profile.says import says
from shim.start import splice
from shim.start.decide import RAW_BPF, LeftAlone, needing
from shim.start.spec import hooks_of, parse_config
from shim.startjson import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shim.host.runtime import Runtime


class Change:
    """The new text of a config.json, by which mechanism, and what the audit log says of it.

    ``calls`` are those that the container's own filter would deny by its default only.
    """

    __slots__ = ("calls", "facts", "mechanism", "text")

    def __init__(self, mechanism: str, text: str, facts: "dict[str, object]") -> None:
        self.calls: dict[str, int] = {}
        self.mechanism = mechanism
        self.text = text
        self.facts = facts


def change(text: str, calls: "dict[str, int]", runtime: "Runtime") -> "Change":
    """Give the change by the cheapest mechanism that really works with ``runtime``.

    The mechanism is ``name``, ``raw-bpf`` or ``filter-injection``, and then the text is as it was:
    the hook has to be entered. It is empty where no call needs anything; ``reason`` among the facts
    says why. ShimError: the config cannot be understood.
    """
    config = parse_config(text, "config.json")
    denied, reason = needing(config, calls, runtime.path)
    if not denied:
        return Change("", text, {"reason": reason})
    annotations: dict[str, object] = config.get("annotations") or {}  # type: ignore[assignment]
    if _knows_all(runtime, denied) and RAW_BPF not in annotations:
        made = _named(config, text, list(denied))
    else:
        made = _programmed(config, text, denied, runtime)
    made.calls = denied
    return made


def paths(text: str) -> "list[str]":
    """Give the paths of all hooks that are entered for the stages before the program starts."""
    hooks = hooks_of(parse_config(text, "config.json"))
    stages = [hooks.get(stage, []) for stage in ("prestart", "createRuntime")]
    return [str(each.get("path")) for stage in stages for each in stage]


def enter(text: str, stage: str, entry: "dict[str, object]") -> str:
    """Enter a hook at ``stage``, behind the others; one of the same path gives way to it."""
    there = hooks_of(parse_config(text, "config.json")).get(stage, [])
    if entry in there:
        return text
    others = [each for each in there if each.get("path") != entry["path"]]
    if len(others) < len(there):
        return splice.put(text, ("hooks", stage), dumps([*others, entry]))
    return splice.add(text, ("hooks", stage), dumps(entry), last=True)


def _knows_all(runtime: "Runtime", names: "dict[str, int]") -> bool:
    from shim.catalog import load
    from shim.host.runtime import knows

    catalogue = load()
    return all(
        name in catalogue and knows(runtime.libseccomp, catalogue[name].libseccomp)
        for name in names
    )


def _named(config: "dict[str, object]", text: str, names: "list[str]") -> Change:
    """Put the calls into the profile by name, as its first rule: no other decides on them."""
    rule = dumps({"names": names, "action": "SCMP_ACT_ALLOW"})
    new = splice.add(text, ("linux", "seccomp", "syscalls"), rule)
    seccomp = parse_config(new, "config.json")["linux"]["seccomp"]  # type: ignore[index]
    for name in names:
        verdict, reason = says(seccomp, name)
        if verdict not in ("allows", "no-x86-64"):
            raise ShimError(f"with a rule for it {name} is still not allowed: {reason}")
    facts: dict[str, object] = {
        "syscall": ",".join(names),
        "before": config["linux"]["seccomp"]["defaultAction"],  # type: ignore[index]
        "after": "SCMP_ACT_ALLOW",
        "proof": "one more rule, for calls that no other rule names",
    }
    return Change("name", new, facts)


def _programmed(
    config: "dict[str, object]", text: str, calls: "dict[str, int]", runtime: "Runtime"
) -> Change:
    """Give crun the finished program; where that does not go, leave it to the hook."""
    from shim.start.digest import sha256
    from shim.start.rawbpf import program, unfit

    reason = unfit(config, runtime)
    if reason:
        return Change("filter-injection", text, {"reason": f"no raw program: {reason}"})
    try:
        made, kept = program(config["linux"]["seccomp"], calls, runtime)  # type: ignore[index]
    except LeftAlone as nothing:
        return Change("", text, {"reason": str(nothing)})
    except ShimError as error:
        return Change("filter-injection", text, {"reason": f"no raw program: {error}"})
    from binascii import b2a_base64

    data = b2a_base64(made, newline=False).decode()
    there = (config.get("annotations") or {}).get(RAW_BPF)  # type: ignore[attr-defined]
    if there == data:
        return Change("", text, {"reason": "the program is in its place already"})
    if there is not None:
        # Somebody's own filter takes the profile's place. Only when it is loaded can it be seen.
        return Change("filter-injection", text, {"reason": "it brings a raw program of its own"})
    facts: dict[str, object] = {
        "syscall": ",".join(calls),
        "before": config["linux"]["seccomp"]["defaultAction"],  # type: ignore[index]
        "after": "ALLOW",
        "length_after": len(made) // 8,
        "sha256_after": sha256(made),
        "proof": "compiled with and without them and compared for every call"
        + (", when it was made" if kept else ""),
    }
    return Change("raw-bpf", splice.add(text, ("annotations",), f'"{RAW_BPF}":"{data}"'), facts)
