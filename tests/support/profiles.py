"""Small profiles in every format and layout, and random ones."""

import copy
import json
from typing import Any

from hypothesis import strategies as st

ERRNO, ALLOW, LOG = "SCMP_ACT_ERRNO", "SCMP_ACT_ALLOW", "SCMP_ACT_LOG"

DOCKER: dict[str, Any] = {
    "defaultAction": ERRNO,
    "defaultErrnoRet": 1,
    "archMap": [
        {
            "architecture": "SCMP_ARCH_X86_64",
            "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        },
        {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
    ],
    "syscalls": [
        {"names": ["read", "write", "exit_group"], "action": ALLOW},
        {"names": ["ptrace"], "action": ALLOW, "includes": {"minKernel": "4.8"}},
        {"names": ["mount", "umount2"], "action": ALLOW, "includes": {"caps": ["CAP_SYS_ADMIN"]}},
    ],
}
OCI: dict[str, Any] = {
    "defaultAction": ERRNO,
    "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
    "syscalls": [
        {"names": ["read", "write"], "action": ALLOW},
        {
            "names": ["personality"],
            "action": ALLOW,
            "args": [{"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}],
        },
    ],
}
CONFIG: dict[str, Any] = {
    "ociVersion": "1.0.2",
    "process": {"args": ["sh"], "cwd": "/"},
    "linux": {"namespaces": [{"type": "pid"}], "seccomp": OCI},
}
FORMATS = {"docker": DOCKER, "oci": OCI, "config.json": CONFIG}

LAYOUTS = {
    "tabs": lambda tree: json.dumps(tree, indent="\t") + "\n",
    "two spaces": lambda tree: json.dumps(tree, indent=2) + "\n",
    "four spaces, no final newline": lambda tree: json.dumps(tree, indent=4),
    "minified": lambda tree: json.dumps(tree, separators=(",", ":")),
    "one line": lambda tree: json.dumps(tree) + "\n",
    "CRLF": lambda tree: json.dumps(tree, indent="\t").replace("\n", "\r\n") + "\r\n",
    "spaced colons": lambda tree: json.dumps(tree, indent=3, separators=(",", " : ")) + "\n\n",
    "no indentation": lambda tree: json.dumps(tree, indent=0),
}


def ruled(*rules: dict[str, Any], **keys: Any) -> dict[str, Any]:
    """Return a profile that denies by default, with ``rules`` for the call ``uretprobe``."""
    named = [{"names": ["read", "uretprobe"], **rule} for rule in rules]
    return {"defaultAction": ERRNO, "syscalls": named, **keys}


def changed(tree: dict[str, Any], pointer: str, value: object) -> dict[str, Any]:
    """Return a copy of ``tree`` with ``value`` at the JSON pointer."""
    tree = copy.deepcopy(tree)
    where: Any = tree
    *path, last = pointer.split("/")[1:]
    for key in path:
        where = where[int(key) if isinstance(where, list) else key]
    where[int(last) if isinstance(where, list) else last] = value
    return tree


_names = st.sampled_from(["read", "uretprobe", "uprobe", "mseal", "é\u2028", 'a"b'])
_actions = st.sampled_from([ALLOW, ERRNO, LOG, "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_NOTIFY"])
_anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
_argument = st.fixed_dictionaries(
    {
        "index": st.integers(0, 5),
        "value": st.integers(0, 2**64 - 1),
        "op": st.sampled_from(["SCMP_CMP_EQ", "SCMP_CMP_MASKED_EQ"]),
    },
    optional={"valueTwo": st.integers(0, 2**64 - 1)},
)
_limits = st.fixed_dictionaries(
    {},
    optional={
        "arches": st.lists(st.sampled_from(["amd64", "arm64"]), max_size=2),
        "caps": st.lists(st.just("CAP_SYS_ADMIN"), max_size=1),
        "minKernel": st.just("6.1"),
    },
)
_oci_rule = {"names": st.lists(_names, max_size=4), "action": _actions}
_optional = {"args": st.lists(_argument, max_size=2), "errnoRet": st.integers(0, 4095)}
_oci = st.fixed_dictionaries(
    {"defaultAction": _actions},
    optional={
        "syscalls": st.none()
        | st.lists(st.fixed_dictionaries(_oci_rule, optional=_optional), max_size=4),
        "architectures": st.lists(st.sampled_from(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"])),
        "x-unknown": _anything,
    },
)
_docker = st.fixed_dictionaries(
    {
        "defaultAction": _actions,
        "syscalls": st.lists(
            st.fixed_dictionaries(
                {"action": _actions},
                optional={**_optional, "includes": _limits, "excludes": _limits, "x": _anything},
            ).flatmap(
                lambda rule: st.one_of(
                    st.builds(lambda name: {"name": name, **rule}, _names),
                    st.builds(lambda names: {"names": names, **rule}, st.lists(_names, max_size=4)),
                )
            ),
            max_size=4,
        ),
        "archMap": st.just(DOCKER["archMap"]) | st.just([]),
    }
)
trees = st.one_of(
    _oci,
    _docker,
    st.builds(lambda profile: {"ociVersion": "1", "linux": {"seccomp": profile}}, _oci | st.none()),
)
texts = st.builds(lambda tree, layout: layout(tree), trees, st.sampled_from(list(LAYOUTS.values())))
