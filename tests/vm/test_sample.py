"""The sample that CI runs covers the matrix, and docs/proof.md is not of other code."""

import datetime
import os
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from support.checkout import CHECKOUT
from vm import cache, cases, cells, given, kernels, stacks
from vm.errors import LabError

DAY = datetime.date(2026, 1, 20)
PROOF = given.Made(datetime.date(2026, 1, 6), "abcdefabcdef", "0123456789abcdef")


def test_every_case_is_once_on_the_kernel_that_kills() -> None:
    """On the affected kernel each case has one cell, and the user lands share them evenly."""
    ours = [(stack.name, case) for kernel, stack, case in cells.sample() if kernel.ours]
    assert sorted(case for _, case in ours) == sorted(cases.names())
    lands = Counter(stack for stack, _ in ours)
    assert set(lands) == {stack.name for stack in stacks.STACKS}
    assert max(lands.values()) - min(lands.values()) <= 1


def test_every_kernel_is_there_and_probed() -> None:
    """Each kernel is booted, runs more than one case, and says of what kind it is."""
    for kernel in kernels.KERNELS:
        told = {case for k, _, case in cells.sample() if k == kernel}
        assert len(told) > 1
        assert "probe" in told


def test_every_case_is_once_where_nothing_kills() -> None:
    """What has a cell on another kernel than the affected one is run on one of them, or here."""
    there = {case for kernel, _, case in cells.every() if not kernel.ours}
    here = {case for case in there if cells.tested_here(case)}
    assert {case.partition("/")[0] for case in here} == set(cells.TESTED_HERE)
    assert there - here == {case for kernel, _, case in cells.sample() if not kernel.ours}


def test_the_sample_is_of_the_matrix_and_small() -> None:
    """It has no cell twice, none that the matrix lacks, the same ones again, and a third of it."""
    chosen = cells.sample()
    assert len(chosen) == len(set(chosen))
    assert set(chosen) < set(cells.every())
    assert chosen == cells.sample()
    assert 3 * len(chosen) <= len(cells.every())


def test_proof_is_of_this_code() -> None:
    """docs/proof.md is of the code as it is, or, between releases, not much older."""
    shown = subprocess.run(
        ["git", "-c", f"safe.directory={CHECKOUT}", "log", "-1", "--format=%cs"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    )
    day = datetime.date.fromisoformat(shown.stdout.strip())
    changes = (CHECKOUT / "CHANGELOG.md").read_text().splitlines()
    newest = next(line for line in changes if line.startswith("## "))
    released = "unreleased" not in newest
    made = given.made(given.PROOF.read_text())
    assert given.stale(made, given.digest(), day, released=released) == ""


@pytest.mark.parametrize(
    ("digest", "later", "released", "why"),
    [
        (PROOF.digest, 400, True, ""),
        (PROOF.digest, 400, False, ""),
        ("another", 0, False, ""),
        ("another", given.DAYS, False, ""),
        ("another", given.DAYS + 1, False, "15 days younger"),
        ("another", 0, True, "a release needs"),
    ],
)
def test_a_stale_proof_is_refused(digest: str, later: int, released: bool, why: str) -> None:
    """Other code than a proof's may be two weeks younger, and no release; what to do is said."""
    day = PROOF.date + datetime.timedelta(later)
    said = given.stale(PROOF, digest, day, released=released)
    assert why in said
    assert bool(said) == bool(why) == ("--write-proof" in said)


def test_a_proof_says_what_it_is_of() -> None:
    """The line that the template has for it is read back; a page without is refused."""
    template = (Path(__file__).parent / "proof.md.in").read_text()
    empty = ("kernels", "stacks", "cases", "foretold", "kinds", "table")
    parts = {**dict.fromkeys(empty, ""), "summary": "1 of 1"}
    told = {"date": PROOF.date, "commit": PROOF.commit, "digest": PROOF.digest}
    assert given.made(template.format(**parts, **told)) == PROOF
    with pytest.raises(LabError, match="of which commit"):
        given.made("# Proof\n")


def test_the_digest_is_of_what_the_guests_get(tmp_path: Path) -> None:
    """It is the same for the guests' copy, and another where a case or the start path differs."""
    given.copy(tmp_path)
    assert given.digest(tmp_path) == given.digest()
    for name in (
        "tests/vm/cases/probe.py",
        "shim/start/hooks/prestart.py",
        "profiles/docker/default.json",
    ):
        kept = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(kept + b"\n")
        assert given.digest(tmp_path) != given.digest()
        (tmp_path / name).write_bytes(kept)
    shutil.move(tmp_path / "hooks/seccomp-shim-hook", tmp_path / "hooks/another")
    assert given.digest(tmp_path) != given.digest()


def test_the_cache_keeps_what_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody has asked for in two weeks goes, whole or half built; what is in use stays."""
    monkeypatch.setenv("SHIM_CACHE", str(tmp_path))
    old = [cache.built("kernels", name, lambda work: (work / "x").touch()) for name in "ab"]
    dead = tmp_path / "stacks" / ".sid-1.partial"
    dead.mkdir(parents=True)
    lists = tmp_path / "apt" / "sid"
    lists.mkdir(parents=True)
    for path in (*old, dead, lists):
        os.utime(path, (0, 0))
    cache.built("kernels", "a", lambda _: pytest.fail("it is there"))
    cache.prune()
    assert [path.exists() for path in (*old, dead, lists)] == [True, False, False, True]
