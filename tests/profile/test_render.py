"""Edits made in the text: nothing but the edit changes, and it looks like its neighbours."""

import difflib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shim.catalog import Syscall
from shim.profile.document import Document, read
from shim.profile.edit import amended, plan
from shim.profile.jsontext.render import apply
from support.profiles import ALLOW, ERRNO, FORMATS, LAYOUTS, changed, ruled, texts

CALLS = [
    Syscall("uretprobe", {"x86_64": 335}, "kernel-injected", "2.5.6"),
    Syscall("uprobe", {"x86_64": 336}, "kernel-injected", "2.6.1"),
]
REFERENCE = os.environ.get("SHIM_REFERENCE", "")


def patched(text: str, override_deny: bool = False) -> str:
    """Patch ``text`` whatever the kernel, and see that the tree is what the edits say."""
    document = read(text.encode(), "p.json")
    edits, _ = plan(document, CALLS, {}, "always", override_deny)
    after = apply(document, edits)
    assert json.loads(after.text) == amended(document.tree, edits)
    return after.text


def hunks(before: str, after: str) -> tuple[int, list[str], list[str]]:
    """Return the number of hunks of a unified diff, the lines added and those taken away."""
    lines = list(difflib.unified_diff(before.split("\n"), after.split("\n"), lineterm=""))[2:]
    return (
        sum(line.startswith("@@") for line in lines),
        [line[1:] for line in lines if line.startswith("+")],
        [line[1:] for line in lines if line.startswith("-")],
    )


@pytest.mark.parametrize(
    "layout", [name for name in LAYOUTS if name not in ("minified", "one line")]
)
@pytest.mark.parametrize("name", FORMATS)
def test_pure_addition(name: str, layout: str) -> None:
    """The diff of a profile with lines is one hunk of added lines, laid out as by its writer."""
    before = LAYOUTS[layout](FORMATS[name])
    after = patched(before)
    count, added, removed = hunks(before, after)
    assert count == 1
    assert added
    assert removed == []
    # The same writer would have written the amended tree in just this way.
    assert after == LAYOUTS[layout](json.loads(after))


@pytest.mark.parametrize("layout", ["minified", "one line"])
@pytest.mark.parametrize("name", FORMATS)
def test_one_line_stays_one(name: str, layout: str) -> None:
    """A profile without lines gets none, and its spacing is kept."""
    after = patched(LAYOUTS[layout](FORMATS[name]))
    assert after == LAYOUTS[layout](json.loads(after))


INLINE = """\
{
  "defaultAction": "SCMP_ACT_ERRNO",
  "syscalls": [
    { "names": ["read", "write"], "action": "SCMP_ACT_ALLOW" },
    { "names": ["mkdir"], "action": "SCMP_ACT_ALLOW" }
  ]
}
"""
CUDDLED = """\
{
    "defaultAction": "SCMP_ACT_ERRNO",
    "syscalls": [{
        "names": ["read", "write"],
        "action": "SCMP_ACT_ALLOW"
    }, {
        "names": ["mkdir"],
        "action": "SCMP_ACT_ALLOW"
    }]
}"""
ALONE = """\
{
\t"syscalls": [
\t\t{
\t\t\t"name": "read",
\t\t\t"action": "SCMP_ACT_ALLOW"
\t\t}
\t],
\t"defaultAction": "SCMP_ACT_ERRNO"
}
"""


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        (INLINE, ['    { "names": ["uretprobe", "uprobe"], "action": "SCMP_ACT_ALLOW" },']),
        (
            CUDDLED,
            [
                '        "names": ["uretprobe", "uprobe"],',
                '        "action": "SCMP_ACT_ALLOW"',
                "    }, {",
            ],
        ),
        (
            ALONE,
            [
                "\t\t{",
                '\t\t\t"names": [',
                '\t\t\t\t"uretprobe",',
                '\t\t\t\t"uprobe"',
                "\t\t\t],",
                '\t\t\t"action": "SCMP_ACT_ALLOW",',
                '\t\t\t"comment": "Added by seccomp-shim: newer than this profile",',
                '\t\t\t"includes": {',
                '\t\t\t\t"arches": [',
                '\t\t\t\t\t"amd64"',
                "\t\t\t\t]",
                "\t\t\t}",
                "\t\t},",
            ],
        ),
    ],
)
def test_hand_written(before: str, expected: list[str]) -> None:
    """Layouts that people write by hand are followed."""
    count, added, removed = hunks(before, patched(before))
    assert (count, removed) == (1, [])
    assert sorted(added) == sorted(expected)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", FORMATS)
def test_first_rule(name: str, layout: str) -> None:
    """An empty array, a null and a missing key all get the first rule as the writer would."""
    nothing: tuple[object, ...] = ([], None)
    for syscalls in nothing:
        pointer = "/linux/seccomp/syscalls" if name == "config.json" else "/syscalls"
        tree = changed(FORMATS[name], pointer, syscalls)
        after = patched(LAYOUTS[layout](tree))
        assert after == LAYOUTS[layout](json.loads(after))
    assert json.loads(patched(LAYOUTS[layout]({"defaultAction": ERRNO})))["syscalls"]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "rules",
    [
        [{"names": ["uretprobe"]}],
        [{"names": ["read", "uretprobe"]}],
        [{"names": ["uretprobe", "read", "write"]}],
        [{"names": ["read", "uretprobe", "uprobe"]}, {"names": ["uprobe"]}, {"names": ["mkdir"]}],
        [{"names": ["read"]}, {"names": ["uretprobe", "uretprobe"]}],
    ],
)
def test_taken_out(rules: list[dict[str, Any]], layout: str) -> None:
    """A name or rule taken out leaves the layout that its writer would have given the rest."""
    tree = ruled(*({**rule, "action": ERRNO} for rule in rules), defaultAction=ALLOW)
    after = patched(LAYOUTS[layout](tree), override_deny=True)
    assert after == LAYOUTS[layout](json.loads(after))
    assert "uretprobe" not in after


@given(texts, st.booleans())
def test_any_profile(text: str, override: bool) -> None:
    """Any profile in any layout is patched once and for all, and its line ends stay."""
    once = patched(text, override)
    assert patched(once, override) == once
    if "\r\n" in text:
        assert once.count("\r\n") == once.count("\n")
    if not override and '"syscalls":null' not in "".join(text.split()):
        rest = iter(once)
        assert all(char in rest for char in text)  # in this order: nothing was taken away


def documents() -> list[Path]:
    """Return the upstream profiles, if there are any here."""
    folder = Path(REFERENCE)
    return sorted(folder.glob("moby/*.json")) + sorted(folder.glob("containers/*.json"))


@pytest.mark.skipif(not REFERENCE, reason="SHIM_REFERENCE names no folder")
def test_upstream_profiles() -> None:
    """Each upstream profile gets one hunk of added lines."""
    assert documents()
    for path in documents():
        before = path.read_bytes().decode()
        count, added, removed = hunks(before, patched(before))
        assert (count, removed, bool(added)) == (1, [], True), path


def test_document_is_kept() -> None:
    """No edit, no change: the very same document comes back."""
    document = read(LAYOUTS["tabs"](ruled({"action": ALLOW})).encode(), "p.json")
    assert isinstance(document, Document)
    assert apply(document, []).text == document.text
