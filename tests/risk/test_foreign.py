"""What gaps and explain tell of i386, x32 and arm, against calls that were really made."""

import ctypes
import errno
import json
import mmap
import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from risk.processes import filtered
from risk.units import as_systemd
from shim import abi, cli
from shim.bpf.program import LD_ABS, RET_K, Insns, encode
from shim.catalog.table import numbers
from shim.cli import gaps as verb
from shim.cli import output
from shim.host import libc
from shim.host.kernel_calls import Present, is_served
from shim.profile import docker
from shim.profile.document import read
from shim.profile.model import Loader
from shim.risk.filter_source import NATIVE, Subject, of_profile
from shim.risk.foreign import Foreign, foreign
from shim.risk.gaps import gaps
from support import need
from support.checkout import CHECKOUT
from support.filters import ALLOW, JEQ, JGE, X86_64, in_child, load, shipped

SCHEMA = json.loads((CHECKOUT / "docs/calls.schema.json").read_text())
LAST_CALL = 600
PASSED = 77  # an errno for what the filters in question let pass, so that no call is made
NATIVE_ONLY = {
    "defaultAction": "SCMP_ACT_ERRNO",
    "architectures": ["SCMP_ARCH_X86_64"],
    "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW"}],
}


def subject_of(profile: dict[str, Any], program: str = "runc") -> Subject:
    """Return what a runtime loads of a profile."""
    container: dict[str, Any] = {
        "capabilities": docker.DEFAULT_CAPABILITIES,
        "machine": "x86_64",
        "kernel": (6, 18),
    }
    loader = Loader(program, {"runc": "1.2.0", "crun": "1.15"}[program], "2.5.4")
    return of_profile(read(json.dumps(profile).encode(), "p.json"), loader, container, NATIVE)


def instead(arch: int, first: int) -> bytes:
    """Return a filter that answers PASSED to an architecture's calls from number ``first`` on."""
    insns: Insns = [
        (LD_ABS, 0, 0, 4),
        (JEQ, 0, 3, arch),
        (LD_ABS, 0, 0, 0),
        (JGE, 0, 1, first),
        (RET_K, 0, 0, abi.SECCOMP_RET_ERRNO | PASSED),
        ALLOW,
    ]
    return encode(insns)


def made(key: str, programs: tuple[bytes, ...]) -> dict[int, int]:
    """Return the errno of every call of ``key`` under these filters, the newest first."""

    def work() -> list[int]:
        code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        call = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
        arch = abi.AUDIT_ARCH_I386 if key == "i386" else X86_64
        load(instead(arch, abi.X32_SYSCALL_BIT if key == "x32" else 0))
        for program in reversed(programs):
            load(program)
        found = []
        for number in range(LAST_CALL + 1):
            if key == "i386":
                # push rbx; mov eax, NUMBER; int 0x80; pop rbx; ret
                word = number.to_bytes(4, "little")
                code[:10] = b"\x53\xb8" + word + b"\xcd\x80\x5b\xc3"
                found.append(-call())
            else:
                try:
                    libc.syscall(abi.X32_SYSCALL_BIT | number)
                except OSError as error:
                    found.append(error.errno or 0)
        return found

    return dict(enumerate(in_child(work)))


def disagreeing(subject: Subject, key: str) -> list[str]:
    """Return the calls that are answered otherwise than is told."""
    answered = made(key, subject.programs)
    other = subject.of(key)
    there = Present(frozenset(numbers()[key]), "all of them")
    wrong = []
    for each in gaps(other, there).answers:
        told = {PASSED if word == "allowed" else getattr(errno, word) for word in each.words}
        if each.number <= LAST_CALL and answered[each.number] not in told:
            wrong.append(f"{each.call.name}: told {each.word}, got {answered[each.number]}")
    return wrong


@pytest.mark.parametrize("key", ["i386", "x32"])
@pytest.mark.parametrize("kind", ["runc", "crun", "systemd"])
def test_every_call_is_answered_as_gaps_says(key: str, kind: str) -> None:
    """By int 0x80 and by the bit of x32, under filters of Docker's profile and of systemd's way."""
    need.root()
    need.kernel(os.uname().machine == "x86_64", "the calls are those of x86-64's other ABIs")
    need.kernel(key == "x32" or is_served(key) is True, "this kernel runs no 32-bit programs")
    if kind == "systemd":
        subject = Subject("a unit", NATIVE, as_systemd("mseal", "sync", "time"))
    else:
        subject = subject_of(shipped(), kind)
    assert disagreeing(subject, key) == []
    (told,) = [each for each in foreign(subject) if each.key == key]
    assert told.answers["allowed"] > 250
    assert told.answers["EPERM"] > 1
    assert told.whole == ""


def test_a_profile_that_lists_no_other_architecture() -> None:
    """Every call of theirs kills, whatever the rules say; to list it is what would help."""
    subject = subject_of(NATIVE_ONLY)
    i386, x32 = foreign(subject)
    assert (i386.whole, x32.whole) == ("killed", "killed")
    assert i386.line() == "32-bit programs: every call kills"
    [answer] = gaps(subject.of("i386"), Present(frozenset(["read"]), "")).answers
    assert answer.cause.startswith("the profile does not list this architecture")
    assert answer.remedies[0].text == "list the architecture in the profile"
    if is_served("i386"):
        need.root()
        assert in_child(lambda: _i386_call(subject.programs[0])) == -31  # SIGSYS


def _i386_call(program: bytes) -> int:
    """Make the call number 3 of i386, which is read."""
    code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code[:10] = b"\x53\xb8\x03\0\0\0\xcd\x80\x5b\xc3"
    load(program)
    return int(ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))())


def test_an_open_door_is_told() -> None:
    """A filter for x86-64 alone that lets others pass withholds nothing from 32-bit programs."""
    native = as_systemd("mseal")[-1]
    i386, x32 = foreign(Subject("it", NATIVE, (native,)))
    assert (i386.whole, x32.whole) == ("allowed", "allowed")
    assert i386.line() == "32-bit programs: every call passes"


def test_the_verbs_list_them(capsys: pytest.CaptureFixture[str]) -> None:
    """Of a live process, --arch takes the place of the machine's own calls; documents hold."""
    with filtered(*reversed(as_systemd("mseal", "time"))) as pid:
        assert cli.main(["gaps", "--pid", str(pid), "--json"]) == 0
        whole = json.loads(capsys.readouterr().out)
        jsonschema.validate(whole, SCHEMA)
        assert [each["architecture"] for each in whole["foreign"]] == ["i386", "x32"]
        assert cli.main(["gaps", "--pid", str(pid), "--json", "--arch", "i386"]) == 0
        listed = json.loads(capsys.readouterr().out)
        jsonschema.validate(listed, SCHEMA)
        assert (listed["architecture"], listed["foreign"]) == ("i386", [])
        answers = {each["name"]: each["answers"] for each in listed["calls"]}
        assert answers["time"] == ["EPERM"]
        assert answers["waitpid"] == ["allowed"]
        assert len(answers) == sum(whole["foreign"][0]["answers"].values())
        # 13 is time on i386, and rt_sigaction on x86-64.
        assert cli.main(["explain", "13", "--pid", str(pid), "--json", "--arch", "i386"]) == 1
        told = json.loads(capsys.readouterr().out)
        assert (told["name"], told["architecture"]) == ("time", "i386")
    assert cli.main(["gaps", "--arch", "arm"]) == 2
    said = "arm: is no ABI of this filter's machine (it has x86_64, i386, x32)"
    assert said in capsys.readouterr().err
    assert cli.main(["gaps", "--machine", "aarch64", "--arch", "arm", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["counts"]["allowed"] > 200


def test_it_is_a_line_each_at_80_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """How many calls get which answer, and what lists them; what the kernel has not is said."""
    monkeypatch.setattr(output, "screen", lambda: 80)
    subject = subject_of(NATIVE_ONLY)
    there = Present(frozenset(("read", "mseal")), "a kernel that tests made up")
    answers = {"allowed": 350, "EPERM": 73, "ENOSYS": 14, "by arguments": 3}
    others = [
        Foreign("i386", "32-bit programs", True, answers),
        Foreign("x32", "64-bit programs with 32-bit pointers", False, {"killed": 374}),
    ]
    verb.show(subject, there, gaps(subject, there), others, everything=False)
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert (
        "\ni386    32-bit programs: 350 allowed, 73 EPERM, 14 ENOSYS, 3 by arguments\n"
        "        (--arch i386 lists them)\n"
        "x32     64-bit programs with 32-bit pointers: this kernel has no call of theirs\n"
    ) in out
    verb.show(subject.of("i386"), there, gaps(subject.of("i386"), there), everything=False)
    assert "The profile does not list this architecture.\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("symbols", "served"),
    [
        ("0 T __x64_sys_read\n0 T __ia32_sys_read\n", True),
        ("0 T __x64_sys_read\n", False),
        ("0 T printk\n", None),
    ],
)
def test_whether_a_kernel_runs_32_bit_programs(
    symbols: str, served: bool | None, tmp_path: Path
) -> None:
    """Its symbols tell; where it hides them nobody knows."""
    need.kernel(os.uname().machine == "x86_64", "the symbols are those of x86-64")
    (tmp_path / "kallsyms").write_text(symbols)
    assert is_served("i386", str(tmp_path / "kallsyms")) is served
    assert is_served("arm", str(tmp_path / "kallsyms")) is None
