"""What a flat OCI profile says about one call."""

import subprocess
import sys
import tempfile
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shim import abi
from shim.bpf import emulator, program
from shim.errors import ShimError
from shim.profile.evaluate import evaluate, same_action
from support.profiles import ALLOW, ERRNO, LOG, ruled

ARGUMENT = [{"index": 0, "value": 5, "op": "SCMP_CMP_EQ"}]
X86_64 = "SCMP_ARCH_X86_64"
VERDICTS: list[tuple[Any, str]] = [
    (None, "unconfined"),
    ({}, "unconfined"),
    ({"defaultAction": "", "syscalls": []}, "unconfined"),
    (ruled(), "denied-by-default"),
    (ruled(syscalls=None), "denied-by-default"),
    (ruled(defaultAction="SCMP_ACT_TRAP"), "denied-by-default"),
    (ruled(defaultAction=ALLOW), "default-allows"),
    (ruled(defaultAction=LOG), "default-allows"),
    (ruled({"action": ALLOW, "args": ARGUMENT}, defaultAction=LOG), "default-allows"),
    (ruled(defaultAction="SCMP_ACT_NOTIFY"), "supervised"),
    (ruled(defaultAction="SCMP_ACT_TRACE"), "denied-by-default"),
    (ruled(defaultAction="SCMP_ACT_TRACE", architectures=["SCMP_ARCH_X86"]), "no-x86-64"),
    (ruled({"action": "SCMP_ACT_TRACE"}, defaultAction="SCMP_ACT_TRACE"), "supervised"),
    (ruled({"action": ALLOW, "args": ARGUMENT}, defaultAction="SCMP_ACT_TRACE"), "conditional"),
    (ruled({"action": "SCMP_ACT_NOTIFY"}), "supervised"),
    (ruled({"action": ALLOW}, defaultAction="SCMP_ACT_NOTIFY"), "allows"),
    (ruled({"action": ALLOW}), "allows"),
    (ruled({"action": LOG}), "allows"),
    (ruled({"action": ALLOW, "args": []}), "allows"),
    (ruled({"action": ALLOW, "args": ARGUMENT}), "conditional"),
    (ruled({"action": ALLOW, "args": ARGUMENT}, {"action": ALLOW}), "allows"),
    (ruled({"action": ERRNO}), "explicit-deny"),
    (ruled({"action": ERRNO, "errnoRet": 38}), "explicit-deny"),
    (ruled({"action": "SCMP_ACT_KILL"}, defaultAction=ALLOW), "explicit-deny"),
    (ruled({"action": ERRNO, "args": ARGUMENT}), "explicit-deny"),
    (ruled({"action": ERRNO}, {"action": ALLOW}), "explicit-deny"),
    (ruled({"action": ALLOW, "args": ARGUMENT}, {"action": ERRNO}), "explicit-deny"),
    (ruled({"action": ALLOW}, {"action": ERRNO}), "allows"),
    (ruled({"action": LOG}, {"action": ERRNO}, defaultAction=LOG), "explicit-deny"),
    (ruled(architectures=["SCMP_ARCH_AARCH64"]), "no-x86-64"),
    (ruled({"action": ERRNO}, architectures=["SCMP_ARCH_AARCH64"]), "explicit-deny"),
    (ruled({"action": ALLOW, "args": ARGUMENT}, architectures=["SCMP_ARCH_X86"]), "conditional"),
    (ruled({"action": ERRNO, "names": ["335"]}), "explicit-deny"),
    (ruled({"action": ERRNO, "names": ["336", "3350", "-335", "uprobe"]}), "denied-by-default"),
    (ruled({"action": ALLOW, "names": ["335"]}), "denied-by-default"),
    (ruled({"action": ERRNO, "names": ["read"], "name": "uretprobe"}), "explicit-deny"),
    (ruled({"action": "SCMP_ACT_TRACE", "names": ["sys_URetProbe "]}), "supervised"),
    (ruled({"action": ERRNO, "names": ["uretprobe\0 and more"]}), "explicit-deny"),
    (ruled(architectures=["SCMP_ARCH_X86", X86_64]), "denied-by-default"),
    (ruled(architectures=[]), "denied-by-default"),
    (ruled(architectures=None), "denied-by-default"),
]


@pytest.mark.parametrize(("profile", "verdict"), VERDICTS)
def test_verdict(profile: Any, verdict: str) -> None:
    """Each shape of a profile has its verdict, with a reason of one line."""
    said, reason = evaluate(profile, "uretprobe")
    assert said == verdict
    assert reason.isprintable()


@pytest.mark.parametrize(
    ("profile", "subject"),
    [
        ([], "the profile"),
        ({"defaultAction": 3}, "/defaultAction"),
        ({"syscalls": [{}]}, "/defaultAction"),
        (ruled(syscalls={}), "/syscalls"),
        (ruled(syscalls=[3]), "/syscalls/0"),
        (ruled({"action": "SCMP_ACT_MAYBE"}), "/syscalls/0/action"),
        (ruled({}), "/syscalls/0/action"),
        (ruled({"action": ALLOW, "names": "uretprobe"}), "/syscalls/0/names"),
        (ruled({"action": ALLOW, "names": [[]]}), "/syscalls/0/names"),
        (ruled({"action": ALLOW, "args": 3}), "/syscalls/0/args"),
        (ruled({"action": ALLOW}, {"action": "?"}), "/syscalls/1/action"),
        (ruled(architectures=[1]), "/architectures"),
        ({"defaultaction": ERRNO}, "/defaultaction"),
        (ruled({"action": ERRNO, "Names": ["uretprobe"]}), "/syscalls/0/Names"),
    ],
)
def test_wrong_types(profile: Any, subject: str) -> None:
    """A wrong type anywhere is an error with the place, whatever a rule before it decided."""
    with pytest.raises(ShimError) as error:
        evaluate(profile, "uretprobe")
    assert error.value.subject == subject


@pytest.mark.parametrize(
    ("default", "rule", "same"),
    [
        ({"defaultAction": ERRNO}, {"action": ERRNO}, True),
        ({"defaultAction": ERRNO}, {"action": ERRNO, "errnoRet": 1}, True),
        ({"defaultAction": ERRNO, "defaultErrnoRet": 38}, {"action": ERRNO}, False),
        ({"defaultAction": ERRNO, "defaultErrnoRet": 38}, {"action": ERRNO, "errnoRet": 38}, True),
        ({"defaultAction": LOG}, {"action": ALLOW}, False),
        ({"defaultAction": "SCMP_ACT_TRAP"}, {"action": "SCMP_ACT_TRAP", "errnoRet": 5}, True),
    ],
)
def test_same_action(default: dict[str, Any], rule: dict[str, Any], same: bool) -> None:
    """A rule does what the default does only if the errno is the same too, EPERM unless given."""
    assert same_action(default, rule) is same


RULES = st.lists(
    st.fixed_dictionaries(
        {"action": st.sampled_from([ALLOW, LOG, ERRNO, "SCMP_ACT_TRAP", "SCMP_ACT_NOTIFY"])},
        optional={"args": st.just(ARGUMENT)},
    ),
    max_size=4,
)


@given(RULES, st.sampled_from([ERRNO, ALLOW, LOG, "SCMP_ACT_KILL_PROCESS"]))
def test_agrees_with_libseccomp(rules: list[dict[str, Any]], default: str) -> None:
    """What libseccomp compiles does to the call what the verdict says."""
    verdict, _ = evaluate(ruled(*rules, defaultAction=default), "uretprobe")
    allowed = _allowed(rules, default)
    expected = {
        "allows": [(True, True)],
        "default-allows": [(True, True)],
        "denied-by-default": [(False, False)],
        "conditional": [(True, False)],
    }
    if verdict in expected:
        assert allowed in expected[verdict]
    elif verdict == "explicit-deny":
        assert any(rule["action"] in {ERRNO, "SCMP_ACT_TRAP"} for rule in rules)
    else:
        assert verdict == "supervised"
        assert any(rule["action"] == "SCMP_ACT_NOTIFY" for rule in rules)


def _allowed(rules: list[dict[str, Any]], default: str) -> tuple[bool, bool]:
    """Compile as a runtime does; tell if a call is let pass with the argument 5, and without."""
    import pyseccomp

    actions = {
        ALLOW: pyseccomp.ALLOW,
        LOG: pyseccomp.LOG,
        ERRNO: pyseccomp.ERRNO(1),
        "SCMP_ACT_TRAP": pyseccomp.TRAP,
        "SCMP_ACT_NOTIFY": pyseccomp.NOTIFY,
        "SCMP_ACT_KILL_PROCESS": pyseccomp.KILL_PROCESS,
    }
    compiled = pyseccomp.SyscallFilter(actions[default])
    number = 83
    for rule in rules:
        if rule["action"] == default:
            continue  # runtimes leave such a rule out
        conditions = [pyseccomp.Arg(0, pyseccomp.EQ, 5)] if "args" in rule else []
        try:
            compiled.add_rule(actions[rule["action"]], number, *conditions)
        except FileExistsError:
            continue  # so do they, with a rule that contradicts an earlier one
    with tempfile.TemporaryFile() as file:
        compiled.export_bpf(file)
        file.seek(0)
        insns = program.decode(file.read())
    passing = (abi.SECCOMP_RET_ALLOW, abi.SECCOMP_RET_LOG)
    five, zero = (
        emulator.verdict(insns, number, abi.AUDIT_ARCH_X86_64, (first, 0, 0, 0, 0, 0)) in passing
        for first in (5, 0)
    )
    return five, zero


def test_imports_nothing() -> None:
    """The start path pays for no module of the standard library."""
    code = (
        "import sys; before = set(sys.modules); import shim.profile.evaluate; "
        "print(sorted(set(sys.modules) - before))"
    )
    out = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True, cwd=_root()
    ).stdout
    ours = ["shim", "shim.abi", "shim.errors", "shim.profile", "shim.profile.evaluate"]
    assert out.strip() == str(ours)


def _root() -> str:
    import shim

    return str(shim.__path__[0]) + "/.."
