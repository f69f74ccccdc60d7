"""What is to be changed in a container's config.json so that its filter lets calls through.

Pure but for the program that crun is given, which is kept in a folder of ours, and our own rights.
"""

import os

from shim.errors import ShimError
from shim.profile.evaluate import says
from shim.start.decide import RAW_BPF, LeftAlone, needing
from shim.start.spec import hooks_of, parse_config
from shim.start.wrapper import splice
from shim.startjson import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shim.host.runtimes import Runtime

# What follows the dot is done where our file cannot be opened. The settings' compiled lines go with
# an uninstallation: then nobody wants the start to be refused.
_CALL = 'ulimit -n 1024; ulimit -s 8192; command . "$0"; '
_CALLS = {
    "seccomp-shim-hook": _CALL
    + 'lines=/etc/seccomp-shim/config.lines; [ "$1" != --config ] || lines="${2%.yaml}.lines"; '
    'command exec <"$lines" || exit 0; '
    'while read -r key value; do [ "$key $value" != "on_error deny" ] || exit 1; done; exit 0',
    "seccomp-shim-verify": f"{_CALL}exit 0",
    "seccomp-shim-precreate": f"{_CALL}exec cat",
}


_ENOSYS = 38

# What dash needs to begin at all (measured with 0.5.12), with something to spare; and to read our
# files, which is more of its stack than 16 KiB hold at times, if it may not raise that limit.
_LEAST = {
    "RLIMIT_STACK": 16 << 10,
    "RLIMIT_AS": 4 << 20,
    "RLIMIT_DATA": 512 << 10,
    "RLIMIT_NOFILE": 5,
}
_LEAST_STACK = 64 << 10
_CAP_SYS_RESOURCE = 1 << 24


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
    if _has_own_program(config):
        # Of an earlier start: crun would load that one, whatever the profile says by now.
        made = change(splice.remove(text, ("annotations", RAW_BPF)), calls, runtime)
        if made.text == text:
            return Change("", text, {"reason": "the program is in its place already"})
        return made
    denied, reason = needing(config, calls, runtime.path)
    if not denied:
        return Change("", text, {"reason": reason})
    annotations: dict[str, object] = config.get("annotations") or {}  # type: ignore[assignment]
    by_name = _knows_all(runtime, denied) and RAW_BPF not in annotations
    moved = by_name and _moves_line(config, runtime)
    if by_name and not moved:
        made = _named(config, text, list(denied))
    else:
        made = _programmed(config, text, denied, runtime)
    if moved:
        made.facts["reason"] = "by name runc would refuse other calls in another way"
    made.calls = denied
    return made


def hook(path: str, options: "list[str]") -> "dict[str, object]":
    """Return the entry by which a runtime calls our executable ``path`` with ``options``.

    It is the shell that is called: bundles are kept, and the executable may be gone when one is
    used again; and crun sets a container's limits on its hooks: dash can open no script while that
    of open files is below 11.
    """
    words = ["/bin/sh", "-c", _CALLS[os.path.basename(path)], path, *options]
    return {"path": words[0], "args": words}


def starving(text: str, runtime: "Runtime") -> str:
    """Return the container's limit under which no hook of ours would run; empty if there is none.

    crun sets the container's limits on its hooks (1.8.1), runc does not; a hook that dies fails the
    start. Whoever writes an image's settings has them at his choice.
    """
    if runtime.program.startswith("runc "):
        return ""
    process = parse_config(text, "config.json").get("process")
    limits = process.get("rlimits") if isinstance(process, dict) else None
    for limit in limits if isinstance(limits, list) else ():
        kind, soft = (limit.get("type"), limit.get("soft")) if isinstance(limit, dict) else ("", 0)
        if type(soft) is not int or kind not in _LEAST:
            continue
        if soft < _LEAST[kind] or (
            kind == "RLIMIT_STACK" and soft < _LEAST_STACK and not _may_raise()
        ):
            return f"{kind[7:]} {soft}"
    return ""


def _may_raise() -> bool:
    with open("/proc/self/status", "rb") as file:
        for line in file:
            if line.startswith(b"CapEff:"):
                return bool(int(line.split()[1], 16) & _CAP_SYS_RESOURCE)
    return False


def has(text: str, entry: "dict[str, object]") -> bool:
    """Tell whether this very hook is entered for a stage before the program starts."""
    hooks = hooks_of(parse_config(text, "config.json"))
    stages = [hooks.get(stage, []) for stage in ("prestart", "createRuntime")]
    return any(program(each) == program(entry) for stage in stages for each in stage)


def enter(text: str, stage: str, entry: "dict[str, object]") -> str:
    """Enter a hook at ``stage``, behind the others; one of the same program gives way to it."""
    there = hooks_of(parse_config(text, "config.json")).get(stage, [])
    if entry in there:
        return text
    name = os.path.basename(program(entry)[0])
    others = [each for each in there if os.path.basename((program(each) or [""])[0]) != name]
    if len(others) < len(there):
        return splice.put(text, ("hooks", stage), dumps([*others, entry]))
    return splice.add(text, ("hooks", stage), dumps(entry), last=True)


def program(entry: object) -> "list[str]":
    """Return the program and options that an entry stands for, be it called by our shell or not."""
    if not isinstance(entry, dict):
        return []
    words = entry.get("args") or [entry.get("path")]
    if not isinstance(words, list):
        return []
    called = words[3:] if words[:2] == ["/bin/sh", "-c"] else [entry.get("path"), *words[1:]]
    return [str(word) for word in called]


def _has_own_program(config: "dict[str, object]") -> bool:
    """Tell whether the raw program is ours: then the hook that looks for it knows its SHA-256."""
    annotations = config.get("annotations")
    data = annotations.get(RAW_BPF) if isinstance(annotations, dict) else None
    if not isinstance(data, str):
        return False
    from binascii import a2b_base64

    from shim.start.digest import sha256

    try:
        digest = sha256(a2b_base64(data))
    except ValueError:
        return False
    entries = hooks_of(config).get("poststart", [])
    told = [args for entry in entries if isinstance(args := entry.get("args"), list)]
    return any(
        ["--sha256", digest] in (args[at : at + 2] for at in range(len(args))) for args in told
    )


def _knows_all(runtime: "Runtime", names: "dict[str, int]") -> bool:
    from shim.catalog import load
    from shim.host.runtimes import knows

    catalogue = load()
    return all(
        name in catalogue and knows(runtime.libseccomp, catalogue[name].libseccomp)
        for name in names
    )


def _moves_line(config: "dict[str, object]", runtime: "Runtime") -> bool:
    """Tell whether a name more moves runc's ENOSYS line, so that calls in between get EPERM.

    runc answers ENOSYS above the largest number that a profile names
    (shim/profile/enosys_line.py). What we add is below 424, and a libseccomp that knows it knows
    all of LATER: one of those, and the line is beyond on every architecture that has our calls.
    crun has no such line.
    """
    from shim.catalog.later import LATER

    seccomp: dict[str, object] = config["linux"]["seccomp"]  # type: ignore[index]
    if runtime.program.startswith("crun ") or seccomp.get("defaultErrnoRet") == _ENOSYS:
        return False
    names = (name for rule in seccomp.get("syscalls") or () for name in rule.get("names") or ())  # type: ignore[attr-defined]
    return set(LATER).isdisjoint(names)


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
    from shim.start.wrapper.rawbpf import program, unfit

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
