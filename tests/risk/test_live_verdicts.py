"""What judging intricate filters costs, which anybody may load."""

import pytest

from risk.test_outlook import EVERYTHING, URETPROBE, process
from shim import abi
from shim.bpf.program import RET_K, Insns, encode
from shim.host.kernel_calls import Present
from shim.risk import gaps, scan, verdict
from shim.risk.filter_source import NATIVE, Subject
from shim.risk.groups import Place
from support.filters import denying


def distinct(number: int, length: int = 1) -> bytes:
    """Return a filter that no other test has."""
    body: Insns = [(abi.BPF_LD | abi.BPF_IMM, 0, 0, 7_000_000 + number)] * length
    return encode([*body, (RET_K, 0, 0, abi.SECCOMP_RET_ALLOW)])


def test_what_is_not_known_in_time_is_not_told() -> None:
    """Within a limit what was found before is told; the inner limit does not outlast the outer."""
    known, new = (distinct(0),), (distinct(1),)
    assert verdict.lets_through(known, 400)
    with verdict.within(0), verdict.within(100):
        assert verdict.lets_through(known, 400)
        with pytest.raises(verdict.OutOfTimeError):
            verdict.lets_through(new, 400)
    assert verdict.lets_through(new, 400)


def test_one_owner_s_filters_do_not_use_up_the_time_of_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who has spent his time is undecided, never safe; the next one is judged."""
    monkeypatch.setattr(scan, "_SECONDS_EACH", 1e-9)
    judge = scan._Judge([URETPROBE])
    alone = Place("process")
    first, second = (process((distinct(each),), uid=1000) for each in (2, 3))
    told = judge.seen(first, alone).outlooks["uretprobe"]
    assert (told.outcome, told.why) == ("undecided", "its filter is too intricate")
    monkeypatch.setattr(scan, "_SECONDS_EACH", 1.0)
    judge.spent[1000] = 1.0
    assert judge.seen(second, alone).outlooks["uretprobe"].outcome == "undecided"
    other = process((distinct(4),), uid=1001)
    assert judge.seen(other, alone).outlooks["uretprobe"].outcome == "safe"
    inside = judge.seen(second, Place("container", "docker", "a" * 64))
    assert inside.outlooks["uretprobe"].outcome == "safe"


def test_in_all_there_is_a_limit_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many owners there are."""
    monkeypatch.setattr(scan, "_SECONDS", -1.0)
    judge = scan._Judge([URETPROBE])
    for uid in (1, 2):
        found = judge.seen(process((distinct(5),), uid=uid), Place("process"))
        assert found.outlooks["uretprobe"].outcome == "undecided"


def test_a_filter_is_judged_once_in_whatever_company(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was found of a program is known in every thread that has it beside others."""
    asked = []

    def outcomes(_insns: Insns, nr: int, _arch: int) -> frozenset[int]:
        asked.append(nr)
        return frozenset((abi.SECCOMP_RET_ALLOW,))

    monkeypatch.setattr(verdict, "outcomes", outcomes)
    shared = denying(999)
    for each in range(10, 15):
        verdict.verdicts((distinct(each), shared), 999)
    assert len(asked) == 6


def test_what_is_kept_decoded_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """By instructions, of which a filter has up to 4096."""
    monkeypatch.setattr(verdict, "_KEPT", 1000)
    for each in range(20, 40):
        verdict.verdicts((distinct(each, 200),), 400)
        assert sum(map(len, verdict._decoded_programs.values())) <= 1000
    assert verdict.lets_through((EVERYTHING["allow"],), 400)


def test_what_gaps_takes_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of hundreds of calls those that it does not come to are undecided."""
    monkeypatch.setattr(gaps, "_SECONDS", -1.0)
    subject = Subject("a process", NATIVE, (distinct(50),))
    found = gaps.gaps(subject, Present(frozenset(("read", "uretprobe", "mseal")), "", frozenset()))
    assert {each.words for each in found.answers if each.cause.startswith("the filter")} == {
        ("undecided",)
    }
