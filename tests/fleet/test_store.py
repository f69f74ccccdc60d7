"""The journals of runs over many hosts."""

from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shim.errors import ShimError
from shim.fleet import rollout, store
from shim.transaction import store as state
from support import need


def _run(opened: store.Store) -> str:
    """Make a run of three hosts: one done, one failed, one that never answered."""
    book = opened.begin("apply", [["a", "b", "c"]], of="00001", rules={})
    for host in "abc":
        book.begun(host)
    book.settle({"host": "a", "result": "changed", "reason": ""})
    book.settle({"host": "b", "result": "failed", "reason": "no"})
    book.end("interrupted")
    return book.id


def test_a_run_is_what_its_journal_says(tmp_path: Path) -> None:
    """Head, results, who has begun and how it ended are read back."""
    with store.opened(str(tmp_path)) as opened:
        ident = _run(opened)
        run = opened.found("", "apply")
    assert (run.id, run.kind, run.ended, run.head["of"]) == (ident, "apply", "interrupted", "00001")
    assert {host: line["result"] for host, line in run.lines.items()} == {
        "a": "changed",
        "b": "failed",
    }
    assert run.begun == {"a", "b", "c"}
    assert run.batches == [["a", "b", "c"]]


@given(st.integers(0, 2000))
def test_a_journal_cut_short_anywhere_can_be_gone_on_with(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    """Whatever a kill has left of it, what is added is read, and no line is taken for another."""
    folder = tmp_path_factory.mktemp("store")
    with store.opened(str(folder)) as opened:
        ident = _run(opened)
        path = folder / "runs" / f"{ident}.jsonl"
        whole = path.read_bytes()
        path.write_bytes(whole[:cut])
        before = opened.found("", "apply", "")
        assert before.ended in {"", "interrupted"}
        book = opened.resume(before)
        book.settle({"host": "c", "result": "changed", "reason": ""})
        book.end("done")
        after = opened.found("", "apply", "")
    assert after.ended == "done"
    assert after.lines["c"]["result"] == "changed"
    assert after.lines.keys() - {"c"} == before.lines.keys()


def test_a_run_that_is_gone_on_with_has_not_ended(tmp_path: Path) -> None:
    """How it ended the first time holds no longer once a host is at work again."""
    with store.opened(str(tmp_path)) as opened:
        _run(opened)
        book = opened.resume(opened.found("", "apply"))
        book.begun("b")
        assert opened.found("", "apply").ended == ""


def test_runs_are_found_by_number_and_id(tmp_path: Path) -> None:
    """The last one without a name; what is not there is an error that says where to look."""
    with store.opened(str(tmp_path)) as opened:
        first, second = _run(opened), _run(opened)
        assert opened.found("", "apply").id == second
        assert opened.found("1", "apply").id == first
        assert opened.found(first, "apply").id == first
        with pytest.raises(ShimError, match="7: no such run of fleet apply"):
            opened.found("7", "apply")
        with pytest.raises(ShimError, match="there is no fleet plan yet"):
            opened.found("", "plan")
        with pytest.raises(ShimError, match="1: no such run of fleet plan"):
            opened.found("1", "plan")


def test_two_do_not_work_at_once(tmp_path: Path) -> None:
    """Who comes second is told so at once, and the first is not disturbed."""
    with store.opened(str(tmp_path)) as opened:
        with pytest.raises(ShimError, match="another fleet run is at work"):
            store.opened(str(tmp_path)).__enter__()
        _run(opened)
    with store.opened(str(tmp_path)) as opened:
        assert len(opened.runs("apply")) == 1


def _apply(opened: store.Store, **results: str) -> str:
    """Make an apply that came to these results."""
    book = opened.begin("apply", [list(results)], of="00001", rules={})
    for host, result in results.items():
        book.begun(host)
        book.settle({"host": host, "result": result, "reason": ""})
    book.end("done")
    return book.id


def _rolled_back(opened: store.Store, of: str, *hosts: str) -> None:
    book = opened.begin("rollback", [list(hosts)], of=of, rules={})
    for host in hosts:
        book.settle({"host": host, "result": "rolled back", "reason": ""})
    book.end("done")


def test_a_rollback_is_of_the_last_run_that_left_a_change(tmp_path: Path) -> None:
    """An apply that changed nothing, or was rolled back, is passed over; in the end it is told."""
    with store.opened(str(tmp_path)) as opened:
        with pytest.raises(ShimError, match="there is no fleet apply yet"):
            rollout.last_change(opened, ["a", "b"])
        first = _apply(opened, a="changed", b="changed")
        second = _apply(opened, a="unchanged", b="unchanged")
        assert rollout.last_change(opened, ["a", "b"]).id == first
        _rolled_back(opened, first, "a")
        assert rollout.last_change(opened, ["b"]).id == first
        rules, unused = rollout.Rules(), cast(Any, None)
        found = opened.found(second, "apply")
        with pytest.raises(ShimError, match=f"--id takes one of: {first}") as error:
            rollout.roll_back(opened, unused, ["a", "b"], found, rules, unused)
        assert str(error.value).startswith(second)
        with pytest.raises(ShimError, match="changed nothing, or has been rolled back"):
            rollout.last_change(opened, ["a"])


def test_another_users_run_is_named_or_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two who share journals each go on with runs of their own; the other's has to be named."""
    need.root()
    with store.opened(str(tmp_path)) as opened:
        monkeypatch.setenv("SUDO_USER", "alice")
        hers = _apply(opened, a="changed")
        assert opened.found("", "apply").by == "alice"
        monkeypatch.setenv("SUDO_USER", "bob")
        with pytest.raises(ShimError, match=f"{hers}: the last fleet apply is that of alice"):
            opened.found("", "apply")
        with pytest.raises(ShimError, match=f"is that of alice .--id {hers} rolls it back"):
            rollout.last_change(opened, ["a"])
        assert opened.found(hers, "apply").id == hers
        his = _apply(opened, a="changed")
        monkeypatch.setenv("SUDO_USER", "alice")
        assert opened.found("", "apply").id == rollout.last_change(opened, ["a"]).id == hers
        monkeypatch.delenv("SUDO_USER")
        assert state.whose() == "root"
        assert his != hers
