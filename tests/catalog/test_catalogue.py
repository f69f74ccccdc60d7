"""The catalogue: profiles/syscalls.yaml, its generated module, and what this machine knows."""

import re

import pytest
import yaml

from shim import catalog, injected
from shim.catalog import data, generate
from shim.catalog.table import since
from shim.errors import ShimError

FUTURE = """
shared_by: [x86_64, aarch64]
syscalls:
  - name: tomorrow
    number: 1000
    class: program
    kernel: "9.1"
    libseccomp: ""
    risk: nobody knows yet
    users: nobody knows
    source: 0123456789ab
"""


def _call(text: str) -> catalog.Syscall:
    [row] = generate.rows(text)
    return catalog.Syscall(row.name, row.numbers, row.kind, row.libseccomp, row.kernel)


def test_generated_module_is_up_to_date() -> None:
    """data.py, native.py and calls.tsv are what the generator makes of the files in profiles/."""
    rows = generate.rows(generate.SOURCE.read_text(), generate.OLDER.read_text())
    assert (generate.TARGET.read_text(), generate.TABLE.read_text()) == generate.render(rows)
    assert generate.INJECTED.read_text() == generate.injected(rows)
    assert generate.NATIVE.read_text() == generate.native(rows)


def test_future_call_is_a_data_change() -> None:
    """A call that nobody knows yet passes through the generator without a change to it."""
    call = _call(FUTURE)
    assert (call.name, call.kind, call.libseccomp) == ("tomorrow", "program", "")
    assert call.numbers == {"x86_64": 1000, "aarch64": 1000}


def test_every_fact_reaches_the_program() -> None:
    """What syscalls.yaml says of each call for programs is what load() returns."""
    document = yaml.safe_load(generate.SOURCE.read_text())
    calls = catalog.every()
    for entry in document["syscalls"]:
        call = calls[entry["name"]]
        sharing = [key for key in document["shared_by"] if key not in entry.get("not_on", ())]
        assert call.numbers == entry.get("numbers", dict.fromkeys(sharing, entry.get("number")))
        assert (call.kind, call.libseccomp) == (entry["class"], entry["libseccomp"])
        told = call.kernel, call.risk, call.users
        assert told == (entry["kernel"], entry["risk"], entry["users"])


def test_calls_since_3_17_are_told_of() -> None:
    """Each call that profiles can lag behind has a line on its risk and on who uses it."""
    calls = catalog.every().values()
    assert {call.name for call in calls if since(call) >= (3, 17) and not call.users} == set()
    assert {call.name for call in calls if not call.kernel} < catalog.every().keys()
    assert {*catalog.load()} >= {"uretprobe", "cachestat"}
    assert catalog.load().keys().isdisjoint({"set_mempolicy_home_node", "clone3"})


def test_the_start_path_has_its_own_module() -> None:
    """A start reads the calls that kernels inject, and of the others some names."""
    assert {row[0]: row[1:] for row in data.ROWS} == {
        name: (call.numbers, call.kind, call.libseccomp)
        for name, call in catalog.every().items()
        if call.kind == "kernel-injected"
    }
    assert all(catalog.every()[name].numbers["x86_64"] >= data.FIRST for name in data.LATER)


def test_kernel_injected_calls() -> None:
    """The calls that a kernel makes a process issue are uretprobe and uprobe, x86-64 only."""
    found = catalog.kernel_injected()
    numbers = {name: call.numbers["x86_64"] for name, call in found.items()}
    assert numbers == injected.X86_64 == {"uretprobe": 335, "uprobe": 336}
    assert all(call.numbers.keys() == {"x86_64", "x32"} for call in found.values())


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("number: 1000", "", "needs number or numbers"),
        ("number: 1000", "number: 1000\n    numbers: {x86_64: 1000}", "needs number or numbers"),
        ("number: 1000", "numbers: {x86_64: yes}", "no usable numbers"),
        ("number: 1000", "number: 335", "share numbers from 424 on only"),
        ("number: 1000", "number: 1000\n    not_on: [vax]", "not_on"),
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
        generate.rows(FUTURE.replace(old, new))


@pytest.mark.parametrize("second", ["tomorrow", "overmorrow"])
def test_name_or_number_listed_twice_is_refused(second: str) -> None:
    """Neither a name nor a number of one architecture can stand for two calls."""
    entry = FUTURE[FUTURE.index("  - name") :].replace("tomorrow", second)
    with pytest.raises(ShimError, match="listed twice"):
        generate.rows(FUTURE + entry)
