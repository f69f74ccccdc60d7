"""Kubernetes resources that hold profiles, in many ways of writing YAML."""

import json
from typing import Any

import yaml
from hypothesis import strategies as st

from support.profiles import ALLOW, ERRNO, LAYOUTS, trees

HEAD = """\
apiVersion: security-profiles-operator.x-k8s.io/v1beta1
kind: SeccompProfile
metadata:
  name: mine
spec:
"""
CONFIG_MAP = """\
apiVersion: v1
kind: ConfigMap
metadata:
  name: profiles
data:
"""


def embedded(profile: str, style: str) -> str:
    """Return a ConfigMap with ``profile`` as a scalar of this style: one of | > " '."""
    if style == '"':
        return f"{CONFIG_MAP}  docker.json: {json.dumps(profile)}\n"
    if style == "'":
        lines = profile.replace("'", "''").replace("\n", "\n\n")
        return f"{CONFIG_MAP}  docker.json: '{lines}'\n"
    lines = "".join(f"    {line}\n" for line in profile.removesuffix("\n").split("\n"))
    chomp = "" if profile.endswith("\n") else "-"
    return f"{CONFIG_MAP}  docker.json: {style}{chomp}\n{lines}"


class _Dumper(yaml.SafeDumper):
    """Lists stand right of their key, as half of the world writes them."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        """Leave out the sequence without indentation."""
        del indentless
        super().increase_indent(flow, False)


def _commented(text: str, comments: list[str]) -> str:
    """Put comments and blank lines between the lines of ``text``, which has no block scalars."""
    lines = text.splitlines()
    for index, comment in enumerate(comments):
        at = (index * 7) % (len(lines) + 1)
        lines.insert(at, comment)
    return "\n".join(lines) + "\n"


_calls = st.lists(
    st.sampled_from(["read", "uretprobe", "uprobe", "'a", "x: y"]), min_size=1, max_size=3
)
_rules = st.lists(
    st.fixed_dictionaries(
        {"names": _calls, "action": st.sampled_from([ALLOW, ERRNO, "SCMP_ACT_LOG"])},
        optional={
            "errnoRet": st.integers(0, 99),
            "args": st.just([{"index": 0, "op": "SCMP_CMP_EQ"}]),
        },
    ),
    max_size=3,
)
_specs = st.fixed_dictionaries(
    {"defaultAction": st.sampled_from([ERRNO, ALLOW, "SCMP_ACT_KILL"])},
    optional={
        "syscalls": _rules | st.none(),
        "architectures": st.just(["SCMP_ARCH_X86_64"]),
        "x": st.text(max_size=5) | st.integers() | st.none(),
    },
)
_comments = st.lists(st.sampled_from(["# note", "", "   # - not: [a rule"]), max_size=4)


def _dumped(
    tree: dict[str, Any], flow: bool | None, indented: bool, style: str | None, width: int
) -> str:
    return yaml.dump(
        tree,
        Dumper=_Dumper if indented else yaml.SafeDumper,
        default_flow_style=flow,
        default_style=style,
        sort_keys=bool(width % 2),
        width=width,
        allow_unicode=True,
    )


_profiles = st.builds(
    lambda spec, flow, indented, style, width: _dumped(
        {
            "apiVersion": "security-profiles-operator.x-k8s.io/v1",
            "kind": "SeccompProfile",
            "metadata": {"name": "p"},
            "spec": spec,
        },
        flow,
        indented,
        style,
        width,
    ),
    _specs,
    st.sampled_from([True, False, None]),
    st.booleans(),
    st.sampled_from([None, '"', "'"]),
    st.integers(30, 200),
)
_maps = st.builds(
    lambda tree, layout, style: embedded(layout(tree).replace("\r\n", "\n"), style),
    trees.filter(lambda tree: "linux" not in tree),
    st.sampled_from(list(LAYOUTS.values())),
    st.sampled_from(["|", '"']),
)
resources = _maps | st.builds(_commented, _profiles, _comments)
streams = st.builds(
    lambda texts, newline: "---\n".join(texts).replace("\n", newline),
    st.lists(resources, min_size=1, max_size=3),
    st.sampled_from(["\n", "\n", "\r\n"]),
)
