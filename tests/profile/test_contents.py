"""Files that hold profiles in YAML: what is found in them, and what an edit leaves as it was."""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from shim.catalog import Syscall
from shim.errors import ShimError
from shim.profile.contents import Contents, apply, read
from shim.profile.document import OPERATOR
from shim.profile.edit import plan
from shim.profile.yamltext import nodes
from support.profiles import ALLOW, DOCKER, ERRNO, LAYOUTS, OCI, ruled
from support.resources import CONFIG_MAP, HEAD, embedded, streams

CALLS = [
    Syscall("uretprobe", {"x86_64": 335}, "kernel-injected", "2.5.6"),
    Syscall("uprobe", {"x86_64": 336}, "kernel-injected", "2.6.1"),
]
RULE = {"action": ALLOW, "names": ["uretprobe", "uprobe"]}
REFERENCE = os.environ.get("SHIM_REFERENCE", "")


def patched(text: str) -> tuple[Contents, Contents]:
    """Patch every profile in ``text``, whatever the kernel."""
    before = read(text.encode(), "p.yaml")
    return before, apply(
        before, [plan(part.document, CALLS, {}, "always")[0] for part in before.parts]
    )


def lines_only(before: str, after: str) -> bool:
    """Tell whether ``after`` is ``before`` with whole lines put in."""
    rest = iter(after.splitlines(keepends=True))
    return all(line in rest for line in before.splitlines(keepends=True))


def spec(*lines: str) -> str:
    """Return a SeccompProfile with these lines in its spec."""
    return HEAD + "".join(f"  {line}\n" for line in ("defaultAction: SCMP_ACT_ERRNO", *lines))


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (
            ["syscalls:", "- action: SCMP_ACT_ALLOW", "  names:", "  - read"],
            "  - action: SCMP_ACT_ALLOW\n    names:\n    - uretprobe\n    - uprobe\n",
        ),
        (
            [
                "syscalls:",
                "  # about reading",
                "  -   names:",
                "        - read",
                "      action: SCMP_ACT_ALLOW",
            ],
            "    -   names:\n          - uretprobe\n          - uprobe\n"
            "        action: SCMP_ACT_ALLOW\n",
        ),
        (
            [
                "syscalls: &all",
                "",
                "  # about reading",
                "- {names: ['read'], action: 'SCMP_ACT_ALLOW'}",
            ],
            "  - {names: ['uretprobe', 'uprobe'], action: 'SCMP_ACT_ALLOW'}\n",
        ),
        (
            ["syscalls:", "-", '  names: [read, "write"] # both', '  action: "SCMP_ACT_ALLOW"'],
            '  - names: ["uretprobe", "uprobe"]\n    action: "SCMP_ACT_ALLOW"\n',
        ),
        (
            ["syscalls: [", '  {"names": ["read"], "action": "SCMP_ACT_ALLOW"}', "]"],
            '    {"names": ["uretprobe", "uprobe"], "action": "SCMP_ACT_ALLOW"},\n',
        ),
        (
            ["architectures:", "- SCMP_ARCH_X86_64"],
            "  syscalls:\n  - action: SCMP_ACT_ALLOW\n    names:\n    - uretprobe\n    - uprobe\n",
        ),
    ],
)
def test_rule_is_laid_out_like_its_neighbour(lines: list[str], expected: str) -> None:
    """The rule comes as whole lines in the first rule's style; comments stay with their rule."""
    before = spec(*lines)
    for newline in ("\n", "\r\n"):
        text = before.replace("\n", newline)
        _, after = patched(text)
        rule = expected.replace("\n", newline)
        assert after.text != text
        assert after.text.replace(rule, "", 1) == text


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("syscalls:", "syscalls: [{action: SCMP_ACT_ALLOW, names: [uretprobe, uprobe]}]"),
        (
            "syscalls: ~  # x",
            "syscalls: [{action: SCMP_ACT_ALLOW, names: [uretprobe, uprobe]}]  # x",
        ),
        ("syscalls: []", "syscalls: [{action: SCMP_ACT_ALLOW, names: [uretprobe, uprobe]}]"),
        (
            "syscalls: [{names: [read], action: SCMP_ACT_ALLOW}]",
            "syscalls: [{names: [uretprobe, uprobe], action: SCMP_ACT_ALLOW}, "
            "{names: [read], action: SCMP_ACT_ALLOW}]",
        ),
    ],
)
def test_rule_within_a_line(line: str, expected: str) -> None:
    """Where the rules stand on one line, nothing but that line changes."""
    _, after = patched(spec(line))
    assert after.text == spec(line).replace(line, expected)


def test_profile_in_braces() -> None:
    """A resource in flow style, and one without a final newline, get their first rule."""
    text = f"{{apiVersion: {OPERATOR}v1, kind: SeccompProfile, spec: {{defaultAction: {ERRNO}}}}}"
    _, after = patched(text)
    first = "{syscalls: [{action: SCMP_ACT_ALLOW, names: [uretprobe, uprobe]}], "
    assert after.text == text.replace("{defaultAction", f"{first}defaultAction")
    _, after = patched(f"{HEAD}  defaultAction: SCMP_ACT_ERRNO # none")
    assert after.text.endswith(
        "# none\n  syscalls:\n    - action: SCMP_ACT_ALLOW\n"
        "      names:\n        - uretprobe\n        - uprobe"
    )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_config_map_block(layout: str) -> None:
    """JSON in a block scalar is edited as the same JSON in a file would be."""
    profile = LAYOUTS[layout](DOCKER).replace("\r\n", "\n")
    before, after = patched(embedded(profile, "|"))
    [part] = before.parts
    assert part.name == "ConfigMap profiles data/docker.json"
    assert part.document.format.name == "docker"
    assert after.parts[0].document.text == patched(part.document.text)[1].text
    if layout not in ("minified", "one line"):
        assert lines_only(before.text, after.text)


@pytest.mark.parametrize("layout", ["tabs", "minified", "one line"])
@pytest.mark.parametrize("style", ['"', "'"])
def test_config_map_quoted(layout: str, style: str) -> None:
    """JSON in quotes, as kubectl writes it where there are tabs, is edited inside the quotes."""
    profile = LAYOUTS[layout](OCI)
    if style == "'" and layout == "tabs":
        text = embedded(profile, style)
        with pytest.raises(ShimError, match="cannot be edited"):
            patched(text)
        return
    before, after = patched(embedded(profile, style))
    assert before.parts[0].document.text == profile
    assert after.parts[0].document.text == patched(profile)[1].text
    assert len(before.text.splitlines()) == len(after.text.splitlines())


def test_folded_quotes() -> None:
    """Folds, joins and escapes inside quotes are passed over right."""
    profile = LAYOUTS["tabs"]({**DOCKER, "x": 'é\u2028"\\ 😀', "y": "a  b"})
    for width in (20, 40, 60, 100):
        for unicode in (True, False):
            scalar = yaml.dump({"docker.json": profile}, width=width, allow_unicode=unicode)
            text = CONFIG_MAP + "".join(f"  {line}\n" for line in scalar.splitlines())
            _, after = patched(text)
            assert after.parts[0].document.text == patched(profile)[1].text


def test_every_profile_of_a_stream() -> None:
    """Each profile of a stream is found by name and gets its rule; other documents stay."""
    other = (
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {n: 0x10, t: 2026-11-23, on: no}\n"
    )
    listed = "kind: List\napiVersion: v1\nitems:\n" + "".join(
        f"- {line}\n" if index == 0 else f"  {line}\n"
        for index, line in enumerate(spec().splitlines())
    )
    text = "---\n".join(["# first\n" + spec(), other, embedded(LAYOUTS["tabs"](OCI), "|"), listed])
    before, after = patched(text)
    assert [part.name for part in before.parts] == [
        "SeccompProfile mine (document 0)",
        "ConfigMap profiles data/docker.json (document 2)",
        "SeccompProfile mine (document 3)",
    ]
    for part in after.parts:
        assert part.document.seccomp
        assert part.document.seccomp["syscalls"][0]["names"] == ["uretprobe", "uprobe"]  # type: ignore[index]
    assert other in after.text


def test_json_resource() -> None:
    """A SeccompProfile written as JSON is read and edited as JSON."""
    tree = yaml.safe_load(spec("syscalls:", "- {names: [read], action: SCMP_ACT_ALLOW}"))
    before, after = patched(json.dumps(tree, indent=2))
    assert before.parts[0].document.format.name == "SeccompProfile"
    assert json.loads(after.text)["spec"]["syscalls"][0]["names"] == ["uretprobe", "uprobe"]


BOMB = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(c)}: &{chr(c)} [{','.join(['*' + chr(c - 1)] * 10)}]\n"
    for c in range(ord("b"), ord("l"))
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (spec("syscalls: [{"), "p.yaml:8:1: not valid YAML"),
        (spec("syscalls: nothing"), "p.yaml:7:13: /spec/syscalls must be a list"),
        (spec("syscalls:", "- names: [read]"), "p.yaml:8:5: /spec/syscalls/0 lacks action"),
        (
            spec("defaultAction: SCMP_ACT_LOG"),
            "p.yaml:7:3: not valid YAML: the key 'defaultAction' appears twice",
        ),
        (HEAD, "lacks spec"),
        (HEAD.replace("spec:\n", ""), "lacks spec"),
        (spec().replace("security-profiles-operator", "example"), "none that is known here"),
        (spec().replace("SeccompProfile", "SelinuxProfile"), "holds no seccomp profile"),
        (spec("? [complex]", ": key"), "a key must be a scalar"),
        (spec("other: &x [*x]"), "an alias names what it is in"),
        (spec("other: *x"), "no anchor is named 'x' here"),
        (spec("x: " + "[" * 900), "nested more than 64 levels deep"),
        # PyYAML's own limit, where its parser has one, comes first.
        (spec("x: " + "[" * 1_000_000), "nest"),
        (BOMB + spec(), "its aliases make more than"),
        (
            embedded('{"defaultAction": "SCMP_ACT_EVIL"}', "|"),
            "data/docker.json):1:19: /defaultAction unknown",
        ),
        (spec("x: \x07"), "not valid YAML"),
        ("\ufeff" + spec(), "p.yaml:1:1: begins with a byte order mark"),
        (" " * (3 << 20) + spec(), "is larger than 2 MiB"),
    ],
    ids=range(18),
)
def test_refused_when_read(text: str, words: str) -> None:
    """What is no profile, or an attack, is one line with its place."""
    with pytest.raises(ShimError) as error:
        read(text.encode(), "p.yaml")
    assert words in str(error.value)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x: &r [{names: [a], action: SCMP_ACT_ALLOW}]\n" + spec("syscalls: *r"), "by an alias"),
        (
            spec("syscalls: &r", "- {names: [a], action: SCMP_ACT_ALLOW}", "copy: *r"),
            "layout could not be kept",
        ),
        (HEAD + "  <<: {defaultAction: SCMP_ACT_ERRNO}\n", "behind a merge key"),
        (
            "base: &b\n  defaultAction: SCMP_ACT_ERRNO\n" + HEAD.replace("spec:\n", "spec: *b\n"),
            "by an alias",
        ),
        (embedded(LAYOUTS["one line"](OCI), ">"), "cannot be edited"),
    ],
    ids=range(5),
)
def test_refused_when_edited(text: str, words: str) -> None:
    """Where an edit would reach further than it says, it is not made."""
    with pytest.raises(ShimError, match=words) as error:
        patched(text)
    assert str(error.value).startswith("p.yaml")


def test_names_are_not_taken_out_of_yaml() -> None:
    """Overruling a deny in YAML is refused: the line is the admin's to take out."""
    contents = read(
        spec("syscalls:", "- {names: [uretprobe, x], action: SCMP_ACT_LOG}")
        .replace("LOG", "ERRNO")
        .encode(),
        "p.yaml",
    )
    edits, _ = plan(contents.parts[0].document, CALLS, {}, "always", override_deny=True)
    with pytest.raises(ShimError, match="not taken out of YAML"):
        apply(contents, [edits])


def test_explicit_deny_in_yaml_is_left_alone() -> None:
    """A SeccompProfile that denies the call by name stays as it is."""
    tree = ruled({"action": ERRNO})
    before, after = patched(HEAD + "".join(f"  {line}\n" for line in yaml.dump(tree).splitlines()))
    assert [
        finding.verdict for finding in plan(before.parts[0].document, CALLS, {}, "always")[1]
    ] == [
        "explicit-deny",
        "denied-by-default",
    ]
    names: Any = after.parts[0].document.seccomp
    assert names["syscalls"][0]["names"] == ["uprobe"]


@given(streams)
def test_any_stream(text: str) -> None:
    """Any stream says afterwards what it said before plus the rules, and a second time nothing."""
    before, after = patched(text)
    expected = list(yaml.safe_load_all(before.text))
    for part in before.parts:
        index = int(part.path[0]) if part.path else 0  # in a JSON file it is the file
        if part.document.format.name == "SeccompProfile":
            edits, _ = plan(part.document, CALLS, {}, "always")
            for edit in edits:
                profile = expected[index]["spec"]
                rules = edit.value if isinstance(edit.value, list) else [edit.value]
                profile["syscalls"] = rules + (profile.get("syscalls") or [])
        else:
            data = expected[index]["data"]
            data["docker.json"] = patched(data["docker.json"])[1].text
    assert list(yaml.safe_load_all(after.text)) == expected
    assert patched(after.text)[1].text == after.text
    rest = iter(after.text)
    if "null" not in text:
        assert all(char in rest for char in before.text)  # in this order: nothing was taken away


@given(
    st.binary(max_size=200) | streams.map(str.encode), st.integers(0, 2000), st.binary(max_size=3)
)
def test_any_damage(data: bytes, at: int, noise: bytes) -> None:
    """Whatever happens to a file, reading it gives contents or one line of error."""
    with suppress(ShimError):
        contents = read(data[:at] + noise + data[at:], "p.yaml")
        apply(contents, [plan(part.document, CALLS, {}, "always")[0] for part in contents.parts])


@pytest.mark.skipif(not REFERENCE, reason="SHIM_REFERENCE names no folder")
def test_upstream_resources() -> None:
    """Each upstream resource gets nothing but lines added, one rule for every profile denying."""
    paths = sorted(Path(REFERENCE).glob("spo/*.yaml"))
    assert paths
    for path in paths:
        before, after = patched(path.read_bytes().decode())
        denying = [p for p in before.parts if (p.document.seccomp or {})["defaultAction"] == ERRNO]
        assert after.text.count("uretprobe") == len(denying)
        assert lines_only(before.text, after.text)


@given(streams)
def test_either_parser(text: str) -> None:
    """Where PyYAML has no libyaml its own parser finds the same places."""
    fast = patched(text)[1].text
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nodes, "_LOADER", yaml.SafeLoader)
        assert patched(text)[1].text == fast
