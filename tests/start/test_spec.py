"""config.json is read as every runtime reads it, and changed to what is meant, or not at all."""

import json
import os
import random
import subprocess
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from shim.engines import oci
from shim.errors import ShimError
from shim.host.runtimes import Runtime
from shim.start.hook_entry import enter
from shim.start.spec import RAW_BPF, parse
from shim.start.wrapper import rawbpf
from shim.start.wrapper.mechanism import change
from shim.startjson import dumps
from start.configs import Members, by_crun, by_go, config_text, parsed
from support.containers import EPERM, OTHER_TEST_SYSCALL, TEST_SYSCALL, profile
from support.wrapped import WrappedLab

CALLS = {"uretprobe": 335}
ENTRY: dict[str, object] = {"path": "/bin/shim", "args": ["/bin/shim", "--test-syscall", "400"]}
RULE = {"names": ["uretprobe"], "action": "SCMP_ACT_ALLOW"}
RUNTIMES = [
    Runtime("/nowhere/runc", [], "runc 1.1.5", "2.5.4"),
    Runtime("/nowhere/runc", [], "runc 1.3.6", "2.6.0"),
    Runtime("/nowhere/crun", [], "crun 1.8.1", "2.5.4"),
]
SAID = "an error that names the place"
STRUCTS = {
    "": ("annotations", "hooks", "linux", "root"),
    "linux": ("seccomp",),
    "seccomp": ("architectures", "defaultAction", "defaultErrnoRet", "listenerPath", "syscalls"),
    "rule": ("action", "args", "errnoRet", "names"),
    "argument": ("index", "op", "value", "valueTwo"),
    "hooks": ("createRuntime", "poststart", "prestart"),
    "hook": ("args", "env", "path", "timeout"),
    "root": ("path",),
}
Reader = Callable[[Any, tuple[str, ...]], dict[str, Any]]


@pytest.fixture(autouse=True)
def compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a finished program at hand for crun: what it holds is of no matter here."""
    monkeypatch.setattr(rawbpf, "program", lambda *_: (b"finished", True))


def view(read: Reader, document: Any) -> Any:
    """Return what a reader finds at the places that are gone by."""

    def each(value: Any, kind: str) -> Any:
        if not isinstance(value, list) or isinstance(value, Members):
            return value
        return [read(one, STRUCTS[kind]) if is_object(one) else one for one in value]

    top = read(document, STRUCTS[""])
    seccomp = read(read(top.get("linux"), STRUCTS["linux"]).get("seccomp"), STRUCTS["seccomp"])
    seccomp["syscalls"] = each(seccomp.get("syscalls"), "rule")
    if isinstance(seccomp["syscalls"], list) and not is_object(seccomp["syscalls"]):
        for rule in filter(is_object, seccomp["syscalls"]):
            rule["args"] = each(rule.get("args"), "argument")
    hooks = read(top.get("hooks"), STRUCTS["hooks"])
    hooks = {stage: each(entries, "hook") for stage, entries in hooks.items()}
    return plain([seccomp, hooks, read(top.get("root"), STRUCTS["root"])])


def is_object(value: Any) -> bool:
    """Tell whether a value is an object."""
    return isinstance(value, Members | dict)


def plain(value: Any) -> Any:
    """Turn members into objects."""
    if isinstance(value, Members | dict):
        return {key: plain(each) for key, each in dict(value).items()}
    return [plain(each) for each in value] if isinstance(value, list) else value


def ours(value: Any, known: tuple[str, ...]) -> dict[str, Any]:
    """Read an object as we do."""
    if not isinstance(value, dict):
        return {}
    return {key: value[key] for key in known if value.get(key) is not None}


def sweep(count: int, seed: int) -> Counter[str]:
    """Read and change random texts: how many were read, changed, left as they were, and bad."""
    rng = random.Random(seed)  # noqa: S311 - to be had again, not to be secret
    counts: Counter[str] = Counter()
    for _ in range(count):
        text = config_text(rng)
        outcome = attempt(text, rng.choice(RUNTIMES))
        counts[outcome.partition(":")[0]] += 1
        assert not outcome.startswith("bad"), f"{outcome}\n{text}"
    return counts


def attempt(text: str, runtime: Runtime) -> str:
    """Read and change one text; tell what came of it, and what is wrong with that."""
    try:
        spec = parse(text)
    except ShimError:
        return "doubted"
    members = parsed(text)
    for reader in (by_go, by_crun):
        if view(reader, members) != view(ours, spec.config):
            return f"bad: read otherwise {reader.__name__}"
    before = json.loads(text)
    try:
        made = change(spec, CALLS, runtime)
        edited = made.spec
        for stage in ("createRuntime", "poststart") if made.mechanism else ():
            edited = enter(edited, stage, ENTRY)
        new = edited.proved()
    except ShimError:
        return "left"
    if not made.mechanism:
        return "nothing to do" if new == text else "bad: changed without a mechanism"
    wrong = differences(before, json.loads(new, object_pairs_hook=once), made.mechanism)
    return f"bad: {wrong}" if wrong else "changed"


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of members that are each there once."""
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def differences(before: Any, after: Any, mechanism: str) -> str:
    """Take out of ``after`` what was to be added; empty if ``before`` is left."""
    added = after.get("hooks") or {}
    for stage in ("createRuntime", "poststart"):
        entries = added.get(stage) or [None]
        if entries.pop() != ENTRY:
            return f"no hook at {stage}"
        if not entries:
            del added[stage]
    if mechanism == "name" and after["linux"]["seccomp"]["syscalls"].pop(0) != RULE:
        return "no rule"
    if mechanism == "raw-bpf" and not after["annotations"].pop(RAW_BPF, ""):
        return "no annotation"
    return "" if bare(after) == bare(before) else "more than that has changed"


def bare(document: Any) -> str:
    """Write a document without the empty places that a change may leave."""
    document = json.loads(json.dumps(document))
    linux = document.get("linux") or {}
    if not (linux.get("seccomp") or {}).get("syscalls", True):
        del linux["seccomp"]["syscalls"]
    for stage in ("createRuntime", "poststart"):
        if not (document.get("hooks") or {}).get(stage, True):
            del document["hooks"][stage]
    for key in ("hooks", "annotations"):
        if not document.get(key, True):
            del document[key]
    return json.dumps(document, sort_keys=True)


def test_random_texts_are_changed_as_meant_or_left(capsys: pytest.CaptureFixture[str]) -> None:
    """Odd spacing, keys twice, in any case, escaped or cut by a NUL, wrong types, deep nesting."""
    counts = sweep(1500, seed=17)
    with capsys.disabled():
        print(f"\n1500 texts of config.json: {dict(sorted(counts.items()))}")
    assert counts["changed"] > 100
    assert counts["doubted"] > 100
    assert counts["left"] > 20


@pytest.mark.sweep
def test_twenty_thousand_random_texts(capsys: pytest.CaptureFixture[str]) -> None:
    """The same, for longer."""
    counts = sweep(20_000, seed=4711)
    with capsys.disabled():
        print(f"\n20000 texts of config.json: {dict(sorted(counts.items()))}")
    assert counts["changed"] > 2000


@pytest.mark.parametrize(
    "text",
    [
        '{"linux": {}, "linux": {}}',
        '{"linux": {}, "Linux": {}}',
        '{"LINUX": {}}',
        '{"lin\\u0075x": {}, "linux": null}',
        '{"linux": {"\u017feccomp": {}}}',
        '{"hoo\u212as": {}}',
        '{"linux\\u0000": {}}',
        '{"linux": {"seccomp": {"DefaultAction": "SCMP_ACT_ALLOW"}}}',
        '{"linux": {"seccomp": {"syscalls": [{"names": [], "Names": []}]}}}',
        '{"linux": {"seccomp": {"syscalls": [{"args": [{"Value": 1}]}]}}}',
        '{"hooks": {"postStart": []}}',
        '{"hooks": {"poststart": [{"Path": "/x"}]}}',
        '{"root": {"Path": "/"}}',
        '{"x": [{"a": 1, "a": 1}]}',
        '{} {}',
        '{"x": NaN}',
        '{"x": [-Infinity]}',
        '\ufeff{}',
    ],
)  # fmt: skip
def test_what_can_be_read_in_two_ways_is_not_read(text: str) -> None:
    """Go takes keys in any case and merges two of a kind; crun takes the first, up to a NUL."""
    with pytest.raises(ShimError):
        parse(text)


def test_what_is_a_users_own_may_be_spelled_as_it_likes() -> None:
    """Annotations and environment are data: no runtime folds those."""
    text = '{"annotations": {"Linux": "x", "a": "1", "A": "2"}, "process": {"Path": "\\\\u0000"}}'
    assert parse(text).config["annotations"] == {"Linux": "x", "a": "1", "A": "2"}


WRONG: list[Any] = [{}, "", 0, False, True, "x", 1, {"a": 1}]
HOOKS: list[Any] = [
    *({"poststart": value} for value in WRONG),
    *({"createRuntime": value, "poststart": value} for value in WRONG),
    *({"poststart": [value]} for value in WRONG[1:7]),
    *([], "", 0, False, "x", [1]),
]


@pytest.mark.parametrize("hooks", HOOKS, ids=json.dumps)
@pytest.mark.parametrize("runtime", RUNTIMES, ids=lambda each: f"{each.program}, {each.libseccomp}")
def test_hooks_of_a_wrong_type_are_left(hooks: Any, runtime: Runtime) -> None:
    """Nothing is entered into what is no list of hooks, be it empty."""
    text = dumps({"hooks": hooks, "linux": {"seccomp": profile()}})
    made = change(parse(text), CALLS, runtime)
    with pytest.raises(ShimError):
        enter(enter(made.spec, "createRuntime", ENTRY), "poststart", ENTRY)


# --- with real runtimes ------------------------------------------------------------------------


def both(lab: WrappedLab, text: str) -> list[tuple[int, str]]:
    """Run a config.json by the bare runtime and through the wrapper, which must leave it."""
    folder = lab.folder / "bundle"
    path = folder / "config.json"
    path.write_text(text)
    seen = []
    for runtime in (lab.real, lab.runtime):
        command = oci.command(runtime, "run", "--bundle", str(folder), f"shim-spec-{os.getpid()}")
        done = subprocess.run(command, input="\n", capture_output=True, text=True, check=False)
        seen.append((done.returncode, done.stdout))
    assert path.read_text() == text
    return seen


def bundle(lab: WrappedLab) -> str:
    """Make a bundle; give the text of its config.json without the last brace."""
    folder = lab.folder / "bundle"
    folder.mkdir()
    oci.bundle(folder, profile(), oci.caller((TEST_SYSCALL, OTHER_TEST_SYSCALL)))
    return (folder / "config.json").read_text().rstrip().removesuffix("}")


@pytest.mark.parametrize(
    "more", [', "linux": {}', ', "Linux": {"seccomp": null}', ', "linux\\u0000": {}']
)
def test_a_second_reading_is_a_doubt(lab: WrappedLab, more: str) -> None:
    """Where the runtime may filter by what we do not see nothing is concluded from what we see."""
    seen = both(lab, bundle(lab) + more + "}")
    assert seen[0] == seen[1]
    (line,) = lab.log()
    assert (line["event"], line["level"]) == ("failed", "error")
    if os.path.basename(lab.real) == "runc" and "null" not in more:
        # What a reader that takes the last would call unconfined.
        assert f"{TEST_SYSCALL} {EPERM}" in seen[0][1]


@pytest.mark.parametrize("hooks", [{"poststart": {}}, {"createRuntime": "x"}, []], ids=json.dumps)
def test_a_real_runtime_gets_wrong_hooks_as_they_were(lab: WrappedLab, hooks: Any) -> None:
    """What it makes of them is its own affair."""
    document = json.loads(bundle(lab) + "}")
    document["hooks"] = hooks
    seen = both(lab, json.dumps(document))
    assert seen[0] == seen[1]
