"""The model of what a runtime loads, against the filters that real containers get."""

import json
from pathlib import Path
from typing import Any

import pytest

from shim import abi
from shim.bpf import program as bpf
from shim.bpf.emulator import verdict
from shim.errors import ShimError
from shim.profile.libseccomp import HERE, Names
from shim.profile.model import Loader, loaded
from support import containers, need, odd
from support.filters import X86_64
from support.modelled import BINARIES, profiles, real, unequal
from support.odd import ERRNO, OLD, rule

PROFILES = profiles()
# What no other profile shows comes first: the sample of every run.
_SAMPLE = [name for place, name in enumerate(PROFILES) if place % 5 == 0]
_SAMPLE += [f"odd {name}" for name in ("names uretprobe", "line by the default's twin", "notify")]
OTHERS = ("trixie", "sid")


def _runc(version: str = "1.3.6", libseccomp: str = "2.6.1") -> Loader:
    return Loader("runc", version, libseccomp)


def _answers(profile: dict[str, Any], loader: Loader, *numbers: int) -> list[str]:
    insns = bpf.decode(loaded(profile, loader).program)
    return [bpf.action_name(verdict(insns, nr, X86_64)) for nr in numbers]


def _all_equal(names: "list[str]", folder: Path, program: str, root: Path) -> None:
    runtime, loader = real(folder, program, root)
    wrong = {name: unequal(runtime, loader, PROFILES[name]) for name in names}
    assert {name: why for name, why in wrong.items() if why} == {}


@pytest.mark.parametrize("program", BINARIES)
def test_the_model_is_what_the_runtime_here_loads(tmp_path: Path, program: str) -> None:
    """Every fifth profile: the installed filter is proven equal to the model's, for all calls."""
    need.kernel(containers.supported(), "containers need root on x86-64")
    need.program(BINARIES[program])
    _all_equal(_SAMPLE, tmp_path, program, Path("/"))


@pytest.mark.sweep
@pytest.mark.parametrize("program", BINARIES)
def test_the_model_is_what_the_runtime_here_loads_for_all(tmp_path: Path, program: str) -> None:
    """The same for every profile."""
    need.kernel(containers.supported(), "containers need root on x86-64")
    need.program(BINARIES[program])
    _all_equal(list(PROFILES), tmp_path, program, Path("/"))


@pytest.mark.vm
@pytest.mark.parametrize("program", BINARIES)
@pytest.mark.parametrize("suite", OTHERS)
def test_the_model_is_what_other_user_lands_load(tmp_path: Path, suite: str, program: str) -> None:
    """The sample for the runtimes of newer Debians, which run on this kernel by chroot."""
    _all_equal(_SAMPLE, tmp_path, program, _tree(suite))


@pytest.mark.sweep
@pytest.mark.parametrize("program", BINARIES)
@pytest.mark.parametrize("suite", OTHERS)
def test_the_model_is_what_other_user_lands_load_for_all(
    tmp_path: Path, suite: str, program: str
) -> None:
    """The same for every profile."""
    _all_equal(list(PROFILES), tmp_path, program, _tree(suite))


def _tree(suite: str) -> Path:
    from vm.stacks import STACKS, ready

    return ready(next(stack for stack in STACKS if stack.name == suite)).root


def test_runc_answers_enosys_above_the_largest_number_that_is_named() -> None:
    """A name moves that line, and calls in between go from ENOSYS to the default's errno."""
    numbers = (332, 334, 335, 435)
    old, new = odd.profile(rule(*OLD)), odd.profile(rule(*OLD, "uretprobe"))
    no = ["ERRNO(38)"] * 4
    assert _answers(old, _runc(), *numbers) == no
    assert _answers(new, _runc(), *numbers) == ["ERRNO(1)", "ERRNO(1)", "ALLOW", "ERRNO(38)"]
    assert _answers(new, _runc(libseccomp="2.5.5"), *numbers) == no
    crun = Loader("crun", "1.28", "2.6.1")
    assert _answers(new, crun, *numbers) == ["ERRNO(1)", "ERRNO(1)", "ALLOW", "ERRNO(1)"]


@pytest.mark.parametrize(
    ("version", "line"), [("1.1.5", False), ("1.1.14", False), ("1.1.15", True), ("1.2.0", True)]
)
def test_runc_draws_the_line_on_a_native_architecture_that_is_not_listed(
    version: str, line: bool
) -> None:
    """Since 1.1.15: before, only the architectures that the profile lists have one."""
    profile = odd.profile(rule(*OLD), architectures=[odd.X86])
    assert _answers(profile, _runc(version), 400) == ["ERRNO(38)" if line else "ERRNO(1)"]


def test_what_libseccomp_drops_is_told() -> None:
    """Names of rules that do something, in their order; nothing for a rule like the default."""
    profile = odd.profile(
        rule(*OLD, "uprobe", "no_such_call"), rule("nor_this", action=ERRNO), rule("uretprobe")
    )
    assert loaded(profile, _runc()).dropped == ("no_such_call",)
    found = loaded(profile, _runc(libseccomp="2.5.5")).dropped
    assert found == ("uprobe", "no_such_call", "uretprobe")


@pytest.mark.parametrize(
    ("loader", "changes", "part"),
    [
        (_runc("1.1.15"), {"flags": ["SECCOMP_FILTER_FLAG_LOG"]}, "before 1.2 takes no flags"),
        (_runc(), {"flags": ["SECCOMP_FILTER_FLAG_NO_SUCH"]}, "unknown flag"),
        (_runc("1.0.0-rc92"), {}, "before 1.0.0 is not modelled"),
        (_runc(libseccomp="2.4.4"), {}, "libseccomp 2.4.4 is not modelled"),
        (_runc(), {"defaultAction": "SCMP_ACT_NOTIFY"}, "as default"),
        (Loader("youki", "0.3.0", "2.5.5"), {}, "no runtime whose filters are modelled"),
        (Loader("crun", "1.28", "2.6.1"), {"defaultAction": "SCMP_ACT_KILL"}, "no errno beside"),
    ],
)
def test_what_cannot_be_modelled_is_refused(
    loader: Loader, changes: dict[str, Any], part: str
) -> None:
    """What the runtime refuses, and versions that nobody has looked at, are errors."""
    profile = odd.profile(rule(*OLD), defaultErrnoRet=1) | changes
    with pytest.raises(ShimError) as error:
        loaded(profile, loader)
    assert part in str(error.value)


def test_crun_can_be_told_to_refuse_unknown_names() -> None:
    """By an annotation of the container, other than "0"."""
    profile, crun = odd.profile(rule(*OLD, "no_such_call")), Loader("crun", "1.28", "2.6.1")
    key = "run.oci.seccomp_fail_unknown_syscall"
    assert loaded(profile, crun, {key: "0"}).dropped == ("no_such_call",)
    with pytest.raises(ShimError, match="no_such_call"):
        loaded(profile, crun, {key: "1"})


@pytest.mark.parametrize("value", ["0", "1"])
@pytest.mark.parametrize("name", ["no_such_call", "read"])
def test_crun_here_refuses_unknown_names_as_modelled(tmp_path: Path, name: str, value: str) -> None:
    """The model and crun agree on the annotation."""
    need.kernel(containers.supported(), "containers need root on x86-64")
    need.program(BINARIES["crun"])
    runtime, loader = real(tmp_path, "crun")
    annotations = {"run.oci.seccomp_fail_unknown_syscall": value}
    profile = odd.profile(rule(*OLD, name))
    assert unequal(runtime, loader, profile, annotations=annotations) == ""


@pytest.mark.parametrize(
    ("release", "expected"),
    [
        ("2.5.0", {}),
        ("2.5.2", {"close_range": 436}),
        ("2.5.4", {"close_range": 436, "futex_waitv": 449}),
        ("2.5.5", {"close_range": 436, "futex_waitv": 449, "fchmodat2": 452}),
        ("2.6.1", {"close_range": 436, "futex_waitv": 449, "fchmodat2": 452, "uprobe": 336}),
    ],
)
def test_each_release_knows_its_names(release: str, expected: dict[str, int]) -> None:
    """Those of the catalogue and those before it."""
    names = Names(release)
    asked = ("close_range", "futex_waitv", "fchmodat2", "uprobe", "no_such_call")
    found = {name: names.number(name, abi.AUDIT_ARCH_X86_64) for name in asked}
    assert {name: nr for name, nr in found.items() if nr is not None} == expected


def test_the_library_here_is_asked_for_its_own_names() -> None:
    """What a distribution taught its library, no table says."""
    assert Names(HERE).knows("read")
    assert not Names(HERE).knows("no_such_call")
    assert json.dumps(PROFILES)  # the profiles are plain data
