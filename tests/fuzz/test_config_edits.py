"""What the wrapper makes of a config.json is exactly what it means to, or it makes nothing."""

import json
from collections.abc import Callable
from typing import Any

from fuzz.conftest import Inputs
from fuzz.mutate import damaged, laid_out, scarred
from shim.errors import ShimError
from shim.host.runtime import Runtime
from shim.start.bundle import change, enter
from support.containers import profile

CALLS = {"uretprobe": 335}
ENTRY: dict[str, object] = {"path": "/opt/x/hook", "args": ["/opt/x/hook", "--config", "/c"]}
RULE = {"names": ["uretprobe"], "action": "SCMP_ACT_ALLOW"}
KNOWS = Runtime("/usr/sbin/runc", [], "runc 1.3.0", "2.6.0")
DROPS = Runtime("/usr/sbin/runc", [], "runc 1.1.5", "2.5.4")
WORDS = [
    '"hooks":{},', '"linux":{},', '"Hooks":[],', '"seccomp":null,', '"syscalls":[],', ",", "}", "]",
    '"createRuntime":[],', '"poststart":null,', "\\", '"', "\x00", "\ufeff", "NaN",
]  # fmt: skip
CONFIG: dict[str, Any] = {
    "ociVersion": "1.0.2",
    "process": {"args": ["/bin/true"], "cwd": "/", "terminal": False},
    "annotations": {"a": "b"},
    "hooks": {
        "createRuntime": [{"path": "/bin/a", "args": ["a"], "timeout": 5}],
        "poststart": [{"path": "/bin/b"}],
    },
    "linux": {"seccomp": profile(), "namespaces": [{"type": "mount"}]},
}


def read(text: str, *, first: bool = False) -> Any:
    """Return the document as a reader has it that takes the last of two keys, or the first."""

    def pairs(members: list[tuple[str, Any]]) -> dict[str, Any]:
        return dict(reversed(members)) if first else dict(members)

    return json.loads(text, object_pairs_hook=pairs)


def edited(text: str, runtime: Runtime) -> tuple[str, Any, Any]:
    """Return what the wrapper writes, and what two readers should then see."""
    made = change(text, CALLS, runtime)
    wanted = [read(text, first=first) for first in (False, True)]
    new = made.text
    if made.mechanism == "name":
        for each in wanted:
            each["linux"]["seccomp"]["syscalls"] = [
                RULE, *(each["linux"]["seccomp"].get("syscalls") or [])
            ]  # fmt: skip
    stages = ["poststart"] if made.mechanism else []
    if made.mechanism == "filter-injection":
        stages.append("createRuntime")
    for stage in stages:
        new = enter(new, stage, ENTRY)
        for each in wanted:
            hooks = each.get("hooks") or {}
            each["hooks"] = hooks | {stage: [*(hooks.get(stage) or []), ENTRY]}
    return new, *wanted


def test_an_edit_is_what_was_meant_or_none(inputs: Callable[..., Inputs]) -> None:
    """Both readers of the new text see the old document and the change, else it is refused."""
    tries = inputs("config.json edits", few=1500, many=20_000)
    for draw in tries:
        document = damaged(draw, CONFIG, draw.choice([0, 0, 1, 3]))
        if isinstance(document.get("hooks"), dict):
            document["hooks"] = damaged(draw, document["hooks"], 2)
        text = scarred(draw, laid_out(draw, document), WORDS)
        runtime = draw.choice([KNOWS, DROPS])
        try:
            new, last, first = edited(text, runtime)
        except ShimError:
            tries.count("refused")
            continue
        if new == text:
            tries.count("left alone")
            continue
        tries.count("changed")
        assert read(new) == last, text
        assert read(new, first=True) == first, text
        kept = iter(new)
        assert "null" in text or all(letter in kept for letter in text), text
    assert tries.counts["changed"] > tries.number // 10
    assert tries.counts["refused"] > tries.number // 10
