"""Profiles compiled as a runtime compiles them, compared with libseccomp and the kernel."""

import json
import os
from pathlib import Path
from typing import Any

import pyseccomp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shim import abi
from shim.bpf import program as bpf
from shim.bpf.emulator import verdict
from shim.bpf.equivalence import difference
from shim.errors import ShimError
from shim.host.libseccomp import system_libseccomp
from shim.profile.compile import build, name_of, program
from shim.profile.compile.prefix import Rule, prefix
from shim.profile.compile.rules import Condition
from shim.profile.docker import DEFAULT_CAPABILITIES, resolve
from shim.profile.validate import OPERATORS
from support.filters import CONSTANTS, SIGSYS, X86_64, ask, shipped, words

ALL = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
ERRNO, ALLOW = "SCMP_ACT_ERRNO", "SCMP_ACT_ALLOW"
I386 = abi.AUDIT_ARCH_I386
X32 = abi.X32_SYSCALL_BIT
WIDE = st.builds(lambda high, low: high << 32 | low, words, words) | st.sampled_from(CONSTANTS)


def _answers(oci: dict[str, Any], *calls: tuple[int, int], **options: Any) -> list[str]:
    insns = bpf.decode(build(oci, **options).program())
    return [bpf.action_name(verdict(insns, nr, arch)) for arch, nr in calls]


def _profile(*rules: dict[str, Any], **keys: Any) -> dict[str, Any]:
    return {"defaultAction": ERRNO, "architectures": ALL, "syscalls": list(rules), **keys}


def _references() -> list[Any]:
    """Return the project's own profile and, where SHIM_REFERENCE names them, real upstream ones."""
    folder = os.environ.get("SHIM_REFERENCE")
    found = [pytest.param(shipped(), id="shipped")]
    for path in sorted(Path(folder).glob("*/*.json")) if folder else []:
        found.append(pytest.param(json.loads(path.read_text()), id=path.name))
    return found


def _plainly(oci: dict[str, Any]) -> bytes:
    """Compile known names with libseccomp alone: one filter for all architectures."""
    actions = {ALLOW: pyseccomp.ALLOW, ERRNO: pyseccomp.ERRNO(oci.get("defaultErrnoRet", 1))}
    made = pyseccomp.SyscallFilter(actions[oci["defaultAction"]])
    for name in oci["architectures"]:
        token = getattr(pyseccomp.Arch, name.removeprefix("SCMP_ARCH_"))
        if token != pyseccomp.system_arch():
            made.add_arch(token)
    for rule in oci["syscalls"]:
        errno = rule.get("errnoRet", 1)
        action = pyseccomp.ERRNO(errno) if rule["action"] == ERRNO else actions[rule["action"]]
        arguments = [
            pyseccomp.Arg(
                a["index"], getattr(pyseccomp, a["op"][9:]), a["value"], a.get("valueTwo", 0)
            )
            for a in rule.get("args", [])
        ]
        for name in rule["names"]:
            number = pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name)
            if number != -1 and action != actions[oci["defaultAction"]]:
                made.add_rule(action, number, *arguments)
    with open(os.memfd_create("plain"), "w+b") as file:
        made.export_bpf(file)
        file.seek(0)
        return file.read()


@pytest.mark.parametrize(
    "caps", [DEFAULT_CAPABILITIES, {"CAP_SYS_ADMIN"}], ids=["default", "admin"]
)
@pytest.mark.parametrize("profile", _references())
def test_real_profiles_compile_as_with_libseccomp_alone(
    profile: dict[str, Any], caps: set[str]
) -> None:
    """Two merged filters of the names known here are proven equal to libseccomp's one."""
    oci = resolve(profile, capabilities=caps, machine="x86_64", kernel=(6, 18))
    assert oci is not None
    for rule in oci["syscalls"]:
        known = system_libseccomp(rule["names"])[1]
        rule["names"] = [name for name in rule["names"] if known[name]]
    assert difference(_plainly(oci), program(oci)).equal


@pytest.mark.parametrize("profile", _references())
def test_names_unknown_here_get_their_numbers(profile: dict[str, Any]) -> None:
    """A call that no libseccomp here can name is allowed on x86-64 and x32, and on no other."""
    oci = resolve(profile, capabilities=(), machine="x86_64", kernel=(6, 18))
    assert oci is not None
    for rule in oci["syscalls"]:
        rule["names"] = [name for name in rule["names"] if name not in ("uprobe", "uretprobe")]
    before = program(oci)
    oci["syscalls"].append({"names": ["uretprobe"], "action": ALLOW})
    changes = [str(change).split(":")[0] for change in difference(before, program(oci)).changes]
    assert changes == ["x86_64 335", "x32 335"]
    native = difference(build(oci, native_only=True).program(), program(oci)).changes
    assert all(change.is_x32 or change.arch.single == I386 for change in native)


def test_a_release_of_libseccomp_drops_what_it_does_not_know() -> None:
    """Names go by the release that the catalogue has for them."""
    oci = _profile({"names": ["read", "uretprobe", "uprobe"], "action": ALLOW})
    calls = [(X86_64, 0), (X86_64, 335), (X86_64, 336)]
    yes, no = "ALLOW", "ERRNO(1)"
    for release, expected in {
        "": [yes, yes, yes],
        "2.5.4": [yes, no, no],
        "2.5.6": [yes, yes, no],
        "2.6.1": [yes, yes, yes],
        "3": [yes, yes, yes],
    }.items():
        assert _answers(oci, *calls, libseccomp=release) == expected, release


def test_rules_follow_the_runtime() -> None:
    """Unknown names, rules like the default, and other errno values are treated as by runc."""
    oci = _profile(
        {"names": ["read", "no_such_call"], "action": ALLOW},
        {"names": ["write"], "action": ERRNO},
        {"names": ["open"], "action": ERRNO, "errnoRet": 13},
        {"names": ["close"], "action": "SCMP_ACT_TRACE"},
        {"names": ["stat"], "action": "SCMP_ACT_TRACE", "errnoRet": 7},
        {"names": ["fstat"], "action": "SCMP_ACT_KILL"},
        {"names": ["lstat"], "action": "SCMP_ACT_KILL_PROCESS"},
        {"names": ["poll"], "action": "SCMP_ACT_TRAP"},
        {"names": ["lseek"], "action": "SCMP_ACT_LOG"},
        {"names": ["mmap"], "action": "SCMP_ACT_NOTIFY"},
    )
    answers = _answers(oci, *[(X86_64, nr) for nr in range(11)])
    assert answers == [
        "ALLOW", "ERRNO(1)", "ERRNO(13)", "TRACE(1)", "TRACE(7)", "KILL_THREAD", "KILL_PROCESS",
        "TRAP(0)", "LOG", "USER_NOTIF", "ERRNO(1)",
    ]  # fmt: skip


def test_the_default_errno_is_taken() -> None:
    """``defaultErrnoRet`` answers what no rule does, and a rule with the same errno is no rule."""
    oci = _profile({"names": ["read"], "action": ERRNO, "errnoRet": 38}, defaultErrnoRet=38)
    assert _answers(oci, (X86_64, 0), (X86_64, 400)) == ["ERRNO(38)", "ERRNO(38)"]


def test_architectures_are_those_listed_and_the_native_one() -> None:
    """i386 and x32 calls are killed unless the profile lists their architecture."""
    rule = {"names": ["read"], "action": ALLOW}
    calls = [(X86_64, 0), (I386, 3), (X86_64, X32)]
    assert _answers(_profile(rule), *calls) == ["ALLOW"] * 3
    alone = _answers(_profile(rule, architectures=["SCMP_ARCH_X86_64"]), *calls)
    assert alone == ["ALLOW", "KILL_THREAD", "KILL_THREAD"]
    assert _answers(_profile(rule, architectures=None), *calls) == alone
    companion = _answers(_profile(rule, architectures=["SCMP_ARCH_X86"]), *calls)
    assert companion == ["ALLOW", "ALLOW", "KILL_THREAD"]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(OPERATORS), st.integers(0, 5), WIDE, WIDE, st.lists(WIDE, min_size=4))
def test_conditions_hold_for_all_64_bits(
    operator: str, index: int, one: int, two: int, values: list[int]
) -> None:
    """Each comparison of an argument is that of whole unsigned numbers."""
    condition = {"index": index, "value": one, "valueTwo": two & one, "op": operator}
    oci = _profile({"names": ["personality"], "action": ALLOW, "args": [condition]})
    insns = bpf.decode(program(oci))
    for value in {one, one ^ 1 << 40, one - 1, one + 1, two & one, two & one | ~one, *values}:
        args = [0] * 6
        args[index] = value & (1 << 64) - 1
        allowed = verdict(insns, 135, X86_64, args) == abi.SECCOMP_RET_ALLOW
        assert allowed == _holds(operator, args[index], one, two & one)


def _holds(operator: str, value: int, one: int, two: int) -> bool:
    return {
        "SCMP_CMP_EQ": value == one,
        "SCMP_CMP_NE": value != one,
        "SCMP_CMP_LT": value < one,
        "SCMP_CMP_LE": value <= one,
        "SCMP_CMP_GT": value > one,
        "SCMP_CMP_GE": value >= one,
        "SCMP_CMP_MASKED_EQ": value & one == two,
    }[operator]


def test_conditions_on_several_arguments_must_all_hold() -> None:
    """Two arguments are joined by and; two conditions on one argument by or, as by runc."""

    def condition(index: int, value: int) -> dict[str, Any]:
        return {"index": index, "value": value, "op": "SCMP_CMP_EQ"}

    both = _profile(
        {"names": ["read"], "action": ALLOW, "args": [condition(0, 5), condition(1, 6)]},
        {
            "names": ["write"],
            "action": ALLOW,
            "args": [condition(0, 5), condition(0, 6), condition(1, 7)],
        },
    )
    insns = bpf.decode(program(both))
    for nr, args, expected in [
        (0, (5, 6), True), (0, (5, 7), False), (0, (1, 6), False),
        (1, (5, 0), True), (1, (6, 0), True), (1, (0, 7), True), (1, (0, 0), False),
    ]:  # fmt: skip
        value = verdict(insns, nr, X86_64, [*args, 0, 0, 0, 0])
        assert (value == abi.SECCOMP_RET_ALLOW) is expected, (nr, args)


# Calls of which neither libseccomp nor the kernel's older ABIs make anything special.
_KNOWN = {"personality": (136, 135), "umask": (60, 95), "getpgid": (132, 121)}

# One rule a call: with several, libseccomp 2.5.4 answers some calls of i386 wrongly, such as
# getpgid(1, 0) under "arg0 < 1" and "arg0 != 0 and arg1 != 0", which neither allows.
rules = st.lists(
    st.tuples(
        st.sampled_from(sorted(_KNOWN)),
        st.dictionaries(
            st.integers(0, 5), st.tuples(st.sampled_from(OPERATORS), words, words), max_size=2
        ),
    ),
    max_size=3,
    unique_by=lambda rule: rule[0],
)


@settings(max_examples=60, deadline=None)
@given(rules)
def test_rules_in_front_answer_as_libseccomp_would(
    drawn: list[tuple[str, dict[int, tuple[str, int, int]]]],
) -> None:
    """For calls that libseccomp can name, the front's rules are proven to be its own."""
    oci, empty = _profile(), _profile()
    ahead: list[Rule] = []
    for name, arguments in drawn:
        conditions: list[Condition] = [
            (index, operator, one, one & two) for index, (operator, one, two) in arguments.items()
        ]
        keys = ("index", "op", "value", "valueTwo")
        args = [dict(zip(keys, condition, strict=True)) for condition in conditions]
        oci["syscalls"].append({"names": [name], "action": ALLOW, "args": args})
        old, new = _KNOWN[name]
        for arch, number in ((I386, old), (X86_64, new | X32)):
            ahead.append((arch, number, abi.SECCOMP_RET_ALLOW, tuple(conditions)))
    whole = bpf.encode([*prefix(ahead), *bpf.decode(program(empty))])
    found = difference(whole, program(oci))
    assert found.complete
    assert [c for c in found.changes if c.arch.single == I386 or c.is_x32] == []


def test_no_profile_allows_everything() -> None:
    """No filter, and a profile that is switched off, are the program that allows all."""
    profiles: list[dict[str, Any] | None] = [None, {}, {"syscalls": []}]
    for oci in profiles:
        assert build(oci).filter is None
        assert bpf.decode(program(oci)) == [(bpf.RET_K, 0, 0, abi.SECCOMP_RET_ALLOW)]


def _one_condition(**fields: Any) -> dict[str, Any]:
    condition = {"index": 0, "op": "SCMP_CMP_EQ", "value": 0, **fields}
    return {"syscalls": [{"names": ["read"], "action": ALLOW, "args": [condition]}]}


@pytest.mark.parametrize(
    ("changes", "subject"),
    [
        ({"defaultAction": "SCMP_ACT_WHAT"}, "/defaultAction"),
        ({"defaultErrnoRet": 4096}, "/defaultAction"),
        ({"defaultErrnoRet": "1"}, "/defaultErrnoRet"),
        ({"architectures": ["SCMP_ARCH_PDP11"]}, "/architectures"),
        ({"flags": ["SECCOMP_FILTER_FLAG_WHAT"]}, "/flags"),
        ({"syscalls": [{"names": ["read"]}]}, "/syscalls/0/action"),
        (_one_condition(index=6), "/syscalls/0/args/0/index"),
        (_one_condition(op="SCMP_CMP_ABOUT"), "/syscalls/0/args/0/op"),
        (_one_condition(op=None), "/syscalls/0/args/0/op"),
        (_one_condition(value=-1), "/syscalls/0/args/0/value"),
        (_one_condition(value=1 << 64), "/syscalls/0/args/0/value"),
        (_one_condition(valueTwo=1.5), "/syscalls/0/args/0/valueTwo"),
    ],
)  # fmt: skip
def test_what_a_runtime_refuses_is_refused(changes: dict[str, Any], subject: str) -> None:
    """The error names the place in the profile."""
    with pytest.raises(ShimError) as caught:
        program({**_profile(), **changes})
    assert caught.value.subject.startswith(subject)


def test_flags_are_given_to_who_loads() -> None:
    """Flags of seccomp(2) come with the filter; TSYNC is nothing that a single thread needs."""
    names = [f"SECCOMP_FILTER_FLAG_{name}" for name in ("TSYNC", "LOG", "SPEC_ALLOW")]
    built = build(_profile(flags=names))
    assert built.flags == abi.SECCOMP_FILTER_FLAG_LOG | abi.SECCOMP_FILTER_FLAG_SPEC_ALLOW


@pytest.mark.parametrize("release", ["x", "2.", "2.5.x", "-1"])
def test_a_release_must_be_one(release: str) -> None:
    """What is no release of libseccomp is refused by its name."""
    with pytest.raises(ShimError) as caught:
        program(_profile(), release)
    assert caught.value.subject == release


def test_calls_are_named() -> None:
    """Catalogue names, libseccomp's names, those of x32 and i386, and nothing for the rest."""
    calls = [(X86_64, 335), (X86_64, 335 | X32), (X86_64, 0), (I386, 3), (X86_64, X32), (I386, 335)]
    names = ["uretprobe", "uretprobe", "read", "read", "read", "rt_tgsigqueueinfo"]
    assert [name_of(arch, nr) for arch, nr in calls] == names
    assert name_of(X86_64, 400) == ""


def test_the_kernel_takes_and_follows_what_is_compiled() -> None:
    """Loaded for real: the denied test_syscall, the call that kills, the allowed call."""
    oci = _profile(
        {"names": ["write", "exit_group", "prctl"], "action": ALLOW},
        {"names": ["getppid"], "action": "SCMP_ACT_KILL_PROCESS"},
    )
    compiled = program({**oci, "defaultErrnoRet": 77})
    assert ask(compiled, 400) == 77
    assert ask(compiled, 110) == SIGSYS
    assert ask(compiled, 157, (1 << 31,)) == 22
