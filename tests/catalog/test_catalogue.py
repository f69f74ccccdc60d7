"""The catalogue: profiles/syscalls.yaml, its generated module, and what this machine knows."""

import re
from pathlib import Path
from typing import Any

import pyseccomp
import pytest
import yaml

from shim import catalog
from shim.catalog import generate
from shim.errors import ShimError
from support import need

FUTURE = """
shared_by: [x86_64, aarch64]
syscalls:
  - name: tomorrow
    number: 1000
    class: program
    kernel: "9.1"
    libseccomp: ""
    risk: nobody knows yet
    source: 0123456789ab
"""
LIBSECCOMP_ARCHES = {
    "x86_64": pyseccomp.Arch.X86_64,
    "i386": pyseccomp.Arch.X86,
    "x32": pyseccomp.Arch.X32,
    "aarch64": pyseccomp.Arch.AARCH64,
    "arm": pyseccomp.Arch.ARM,
    "ppc64le": pyseccomp.Arch.PPC64LE,
    "s390x": pyseccomp.Arch.S390X,
}


def _rows(module: str) -> Any:
    names: dict[str, Any] = {}
    exec(module, names)  # noqa: S102 - the generator's own output
    return names["ROWS"]


def test_generated_module_is_up_to_date() -> None:
    """data.py is what the generator makes of syscalls.yaml."""
    assert generate.TARGET.read_text() == generate.render(generate.SOURCE.read_text())


def test_future_call_is_a_data_change() -> None:
    """A call that nobody knows yet passes through the generator without a change to it."""
    [row] = _rows(generate.render(FUTURE))
    call = catalog.Syscall(*row)
    assert (call.name, call.kind, call.libseccomp) == ("tomorrow", "program", "")
    assert call.numbers == {"x86_64": 1000, "aarch64": 1000}


def test_every_fact_reaches_the_program() -> None:
    """What syscalls.yaml says of each call for programs is what load() returns."""
    document = yaml.safe_load(generate.SOURCE.read_text())
    calls = catalog.load()
    assert list(calls) == [entry["name"] for entry in document["syscalls"]]
    for entry in document["syscalls"]:
        call = calls[entry["name"]]
        shared = dict.fromkeys(document["shared_by"], entry.get("number"))
        assert call.numbers == entry.get("numbers", shared)
        assert (call.kind, call.libseccomp) == (entry["class"], entry["libseccomp"])


def test_kernel_injected_calls() -> None:
    """The calls that a kernel makes a process issue are uretprobe and uprobe, x86-64 only."""
    injected = catalog.kernel_injected()
    assert {name: call.numbers["x86_64"] for name, call in injected.items()} == {
        "uretprobe": 335,
        "uprobe": 336,
    }
    assert all(call.numbers.keys() == {"x86_64", "x32"} for call in injected.values())


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("number: 1000", "", "needs number or numbers"),
        ("number: 1000", "number: 1000\n    numbers: {x86_64: 1000}", "needs number or numbers"),
        ("number: 1000", "numbers: {x86_64: yes}", "no usable numbers"),
        ("number: 1000", "number: -1", "no usable numbers"),
        ("number: 1000", "number: 2147483648", "no usable numbers"),
        ("class: program", "class: programs", "class 'programs'"),
        ('kernel: "9.1"', "kernel: 9.1", "kernel 9.1"),
        ('libseccomp: ""', 'libseccomp: "2.6"', "libseccomp '2.6'"),
        ("risk: nobody knows yet", 'risk: "two\\nlines, here"', "risk 'two"),
        ("risk: nobody knows yet", "", "needs number or numbers"),
        ("source: 0123456789ab", "source: 0123456789ab\n    colour: red", "exactly name"),
        ("name: tomorrow", "name: To-morrow", "name 'To-morrow'"),
        ("shared_by: [x86_64, aarch64]", "", "is not a catalogue"),
        ("syscalls:", "syscalls: }", "is not a catalogue"),
    ],
)
def test_malformed_entries_are_refused(old: str, new: str, complaint: str) -> None:
    """The generator names what is wrong with an entry instead of passing it on."""
    assert old in FUTURE
    with pytest.raises(ShimError, match=re.escape(complaint)):
        generate.render(FUTURE.replace(old, new))


@pytest.mark.parametrize("second", ["tomorrow", "overmorrow"])
def test_name_or_number_listed_twice_is_refused(second: str) -> None:
    """Neither a name nor a number of one architecture can stand for two calls."""
    entry = FUTURE[FUTURE.index("  - name") :].replace("tomorrow", second)
    with pytest.raises(ShimError, match="listed twice"):
        generate.render(FUTURE + entry)


@pytest.mark.parametrize("arch", LIBSECCOMP_ARCHES)
def test_numbers_agree_with_libseccomp(arch: str) -> None:
    """This machine's libseccomp knows a call by the catalogue's number or not at all."""
    bit = 0x40000000 if arch == "x32" else 0
    for call in catalog.load().values():
        known = pyseccomp.resolve_syscall(LIBSECCOMP_ARCHES[arch], call.name)
        if known >= 0:
            assert known == call.numbers[arch] | bit, call.name
        if arch in call.numbers:
            assert _libseccomp_name(arch, call.numbers[arch] | bit) in {"", call.name}


def _libseccomp_name(arch: str, number: int) -> str:
    try:
        return str(pyseccomp.resolve_syscall(LIBSECCOMP_ARCHES[arch], number).decode())
    except ValueError:
        return ""


@pytest.mark.parametrize(
    ("arch", "header"),
    [("x86_64", "unistd_64.h"), ("i386", "unistd_32.h"), ("x32", "unistd_x32.h")],
)
def test_numbers_agree_with_kernel_headers(arch: str, header: str) -> None:
    """The installed kernel headers give the catalogue's calls the same numbers, or none."""
    path = Path("/usr/include/x86_64-linux-gnu/asm") / header
    need.kernel(path.exists(), f"{path} (linux-libc-dev) is not installed")
    defined = dict(
        re.findall(r"#define __NR_(\w+) \(?(?:__X32_SYSCALL_BIT \+ )?(\d+)", path.read_text())
    )
    assert len(defined) > 300
    by_number = {int(number): name for name, number in defined.items()}
    for call in catalog.load().values():
        if arch in call.numbers:
            assert by_number.get(call.numbers[arch], call.name) == call.name
        assert int(defined.get(call.name, -1)) in {call.numbers.get(arch), -1}
