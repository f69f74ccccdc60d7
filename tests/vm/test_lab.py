"""The laboratory's own parts, without a guest."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from shim.risk.uprobe import Uretprobe, function_offset
from support import need
from vm import cache, cases, cells, given, initramfs, kernels, matrix, report, stacks
from vm import victim as victim_program
from vm.errors import LabError
from vm.inside.cell import Outcome
from vm.inside.container import RIGHT, ROUNDS, End, judge
from vm.inside.visits import together


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile the probed program."""
    need.program("gcc")
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHIM_CACHE", str(folder))
        return victim_program.ready()


@contextmanager
def waiting(program: Path, root: Path) -> Iterator["subprocess.Popen[str]"]:
    """Run it in a root of its own, up to where it waits to be let go."""
    shutil.copy(program, root / "victim")
    process = subprocess.Popen(
        ["chroot", root, "/victim", "answer", str(ROUNDS)], stdout=subprocess.PIPE, text=True
    )
    try:
        while not (root / "ready").exists():
            assert process.poll() is None
            os.sched_yield()
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


def test_proof_and_cases_agree() -> None:
    """docs/proof.md has a row for each case and stack, a column for each kernel, no failure.

    A case that is younger than the proof has none yet: as with code that is, each run of CI tries
    it in the sample, and ``test_proof_is_of_this_code`` ends its time of grace.
    """
    head, *body = report.cells(given.PROOF.read_text())
    assert head == ["case", "stack", *(k.name for k in kernels.KERNELS)]
    proven = {row[0] for row in body}
    assert len(proven) > 30
    wanted = [(case, stack.name) for case in cases.names() for stack in stacks.STACKS]
    assert [(row[0], row[1]) for row in body] == [each for each in wanted if each[0] in proven]
    assert {case for _, _, case in cells.sample()} == set(cases.names())
    assert not [row for row in body if any(not c or c.startswith("!") for c in row)]
    for case, stack, *told in body:
        (land,) = (s for s in stacks.STACKS if s.name == stack)
        run = [cells.runs(kernel, land, case) for kernel in kernels.KERNELS]
        assert [cell != report.NOT_RUN for cell in told] == run


def test_proof_shows_the_crash() -> None:
    """In docs/proof.md, on the affected kernel, controls died and hooked containers lived."""
    head, *body = report.cells(given.PROOF.read_text())
    column = head.index("affected")
    told = {(row[0], row[1]): row[column] for row in body}
    controls = {v for (case, _), v in told.items() if "control" in case}
    assert controls == {"SIGSEGV"}
    shimmed = ("prestart-hook/", "docker/", "podman/", "containerd/")
    ours = {v for (c, _), v in told.items() if c.startswith(shimmed) and "control" not in c}
    assert ours == {f"lives, {ROUNDS} hits"}


def told_rightly(page: str) -> bool:
    """Tell whether in the text of docs/proof.md scan was right about all containers of all kinds.

    Its counts must be those of its table of kinds, of which none is missing on any stack.
    """
    _, _, part = page.partition("\n## What scan said, and what happened then\n")
    above, _, below = part.partition("\n## ")[0].partition("\nOf each kind")
    counts, kinds = report.cells(above), report.cells(below)
    assert kinds[0] == ["kind", *(f"affected, {stack.name}" for stack in stacks.STACKS)]
    told = [cell for _, *row in kinds[1:] for cell in row]
    dead = sum(cell in {"would die -> SIGSEGV", "would die -> SIGSYS"} for cell in told)
    return dead + told.count("safe -> lives") == len(told) and counts == [
        ["scan said", "died", "lived"],
        ["would die", str(dead), "0"],
        ["safe", "0", str(len(told) - dead)],
    ]


def test_proof_shows_that_scan_was_right() -> None:
    """In docs/proof.md scan was right about every container, of which many died and many lived.

    A proof that is older than the case has no such part: see ``test_proof_and_cases_agree``.
    """
    page = given.PROOF.read_text()
    if any(row[0].startswith("scan/") for row in report.cells(page)):
        assert told_rightly(page)
        assert page.count("| would die -> SIG") > 12
        assert page.count("| safe -> lives") > 12


def foretold(*kinds: tuple[str, str, str]) -> str:
    """Return the proof of a matrix in which scan said that of such kinds on every stack."""
    told = [dict(zip(("kind", "said", "happened"), kind, strict=True)) for kind in kinds]
    names = [stack.name for stack in stacks.STACKS]
    rest = {"kernel": "affected", "told": "2 as told", "wrong": []}
    document: dict[str, Any] = {
        "date": "2026-01-06",
        "commit": "abcdefabcdef",
        "digest": "0123456789abcdef",
        "seconds": 1,
        "kernels": {
            "affected": dict.fromkeys(("told", "release", "package", "state"), "of the lab")
        },
        "stacks": {name: {"runc": "1.1"} for name in names},
        "cases": ["control", "scan/docker"],
        "results": [
            *({"stack": name, "case": "control", **rest} for name in names),
            *({"stack": name, "case": "scan/docker", "kinds": told, **rest} for name in names),
        ],
    }
    return report.proof(report.onto(document, {**document, "results": []}), {})


def test_what_scan_said_is_counted() -> None:
    """The proof counts what scan said and what happened, and has a row for each kind."""
    page = foretold(
        ("runc", "dies", "SIGSEGV"), ("kills", "dies", "SIGSYS"), ("hook", "safe", "lives")
    )
    assert told_rightly(page)
    assert "| would die | 6 | 0 |\n| safe | 0 | 3 |\n" in page
    assert page.count("| kills | would die -> SIGSYS | would die -> SIGSYS | would die") == 1
    assert report.cells(page)[-1] == ["scan/docker", "sid", "2 as told"]


@pytest.mark.parametrize(
    ("said", "happened", "counted"),
    [
        ("dies", "lives", "| would die | 3 | 3 |"),
        ("safe", "SIGSEGV", "| safe | 3 | 0 |"),
        ("unread", "lives", "| unread | 0 | 3 |"),
        ("safe", "exit 1", "| safe | 0 | 0 | 3 |"),
    ],
)
def test_what_scan_said_wrongly_is_shown(said: str, happened: str, counted: str) -> None:
    """A container of which scan was wrong, or could not tell, is counted apart and marked."""
    page = foretold(("runc", "dies", "SIGSEGV"), ("pod", said, happened))
    assert not told_rightly(page)
    assert counted in page
    assert page.count("| ! ") == 1 * len(stacks.STACKS)


def test_every_case_says_what_it_is() -> None:
    """Each case's docstring begins with one whole sentence for the reader of docs/proof.md."""
    assert all(line.endswith(".") and len(line) > 20 for line in cases.described().values())


def test_life_without_hits_is_no_pass() -> None:
    """A process that lived but in which not all hits were counted fails its cell."""
    assert judge(End(RIGHT, "right\n", "", ROUNDS), lives=True).wrong == []
    for hits in (None, 0, ROUNDS - 1):
        assert judge(End(RIGHT, "right\n", "", hits), lives=True).wrong


@pytest.mark.parametrize("end", [(139, ""), (0, "right\n"), (RIGHT, ""), (1, ""), (137, "")])
def test_only_the_right_answer_is_a_life(end: tuple[int, str]) -> None:
    """Neither a wrong answer nor a foreign exit status nor a signal counts as having lived."""
    assert judge(End(*end, "", ROUNDS), lives=True).wrong


@pytest.mark.parametrize("end", [(RIGHT, "right\n"), (137, ""), (159, ""), (1, ""), (255, "")])
def test_only_sigsegv_is_the_crash(end: tuple[int, str]) -> None:
    """A control that lives, or dies of something else, proves nothing and fails."""
    assert judge(End(*end, "", 0), lives=False).wrong


def test_one_dead_process_of_a_container_is_told() -> None:
    """Where the ways into a container differ each is told, and what is wrong says in which."""
    lived, died = (
        judge(End(RIGHT, "right\n", "", ROUNDS), lives=True),
        judge(End(139, "", "", 1), lives=True),
    )
    assert together({"start": lived, "exec": lived}) == lived
    both = together({"start": lived, "exec": died})
    assert both.told == f"start: lives, {ROUNDS} hits; exec: SIGSEGV"
    assert len(both.wrong) == len(died.wrong) > 0
    assert all(wrong.startswith("exec: ") for wrong in both.wrong)


@pytest.mark.parametrize(
    ("case", "affected", "own_land", "runs"),
    [
        ("docker/sdk", True, False, True),
        ("docker/sdk", False, True, False),
        ("docker/registered", False, True, True),
        ("docker/registered", False, False, False),
        ("control/runc", False, False, True),
    ],
)
def test_long_cases_are_reduced(case: str, affected: bool, own_land: bool, runs: bool) -> None:
    """Elsewhere than on the affected kernel few of a long case's variants run, once a kernel."""
    assert cases.wanted(case, affected=affected, own_land=own_land) is runs


def test_a_failed_cell_is_shown() -> None:
    """The table marks a cell that is not as it must be, and the reasons follow."""
    document: dict[str, Any] = {
        "kernels": {"affected": {}},
        "stacks": {"sid": {}},
        "cases": ["control/runc"],
        "seconds": 61,
        "results": [
            {
                "kernel": "affected",
                "stack": "sid",
                "case": "control/runc",
                "told": "lives",
                "wrong": Outcome("lives").expect(False, "must die").wrong,
            }
        ],
    }
    assert report.rows(document)[1] == ["control/runc", "sid", "! lives"]
    assert report.failures(document) == "FAILED affected x sid x control/runc: must die\n"
    assert report.summary(document) == "0 of 1 cells as they must be, 1 min 1 s"


def test_cells_run_again_replace_those_of_before() -> None:
    """What was run again counts in the earlier run's place, and the summary tells how many."""

    def document(**told: str) -> dict[str, Any]:
        return {
            "kernels": {"affected": {}},
            "stacks": {"sid": {}},
            "cases": list(told),
            "seconds": 60,
            "results": [
                {"kernel": "affected", "stack": "sid", "case": case, "told": end, "wrong": []}
                for case, end in told.items()
            ],
        }

    earlier = document(perf="error", probe="filtered")
    earlier["results"][0]["wrong"] = ["no perf"]
    merged = report.onto(earlier, document(perf="lives"))
    assert [row[-1] for row in report.rows(merged)[1:]] == ["lives", "filtered"]
    assert report.summary(merged) == "2 of 2 cells as they must be (1 run again), 2 min 0 s"


def test_uretprobe_counts_every_return(victim: Path, tmp_path: Path) -> None:
    """The probe tool counts each return of the probed function in this very process."""
    need.root()
    need.kernel(Path("/sys/bus/event_source/devices/uprobe").is_dir(), "no uprobes here")
    with waiting(victim, tmp_path) as process:
        path = tmp_path / "victim"
        probe = Uretprobe(path, function_offset(path, "answer"), process.pid)
        (tmp_path / "go").touch()
        output, _ = process.communicate()
        assert (process.returncode, output, probe.hits()) == (RIGHT, "right\n", ROUNDS)
        probe.close()


def test_no_sweep_outside_of_a_container(victim: Path) -> None:
    """Every call made as root without a filter would change this machine: it is refused."""
    done = subprocess.run([victim, "sweep"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "only under a filter" in done.stderr


def test_uretprobe_elsewhere_counts_nothing(victim: Path, tmp_path: Path) -> None:
    """A probe on another process of the same program sees nothing of this one."""
    need.root()
    need.kernel(Path("/sys/bus/event_source/devices/uprobe").is_dir(), "no uprobes here")
    with waiting(victim, tmp_path) as process:
        path = tmp_path / "victim"
        probe = Uretprobe(path, function_offset(path, "answer"), os.getpid())
        (tmp_path / "go").touch()
        process.communicate()
        assert probe.hits() == 0
        probe.close()


def test_no_such_function(victim: Path) -> None:
    """A function that the program does not have is said to be missing."""
    with pytest.raises(LookupError, match="no_such_function"):
        function_offset(victim, "no_such_function")


def test_initramfs_is_an_archive(tmp_path: Path) -> None:
    """What is written as newc, an independent reader takes apart again."""
    busybox = need.program("busybox")
    data = initramfs.archive({"init": b"#!/bin/sh\n", "modules/a.ko": b"\x7fELF" * 3, "bin/b": b""})
    listed = subprocess.run([busybox, "cpio", "-t"], input=data, capture_output=True, check=True)
    names = {"bin", "modules", "dev", "dev/console", "init", "modules/a.ko", "bin/b"}
    assert set(listed.stdout.decode().split()) == names
    extract = [busybox, "cpio", "-i", "-d", "init", "modules/a.ko"]
    subprocess.run(extract, cwd=tmp_path, input=data, capture_output=True, check=True)
    assert (tmp_path / "init").read_bytes() == b"#!/bin/sh\n"
    assert (tmp_path / "modules/a.ko").read_bytes() == b"\x7fELF" * 3


def test_an_interrupted_build_is_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A build that failed half way is made again; a finished one never."""
    monkeypatch.setenv("SHIM_CACHE", str(tmp_path))
    built = []

    def half(work: Path) -> None:
        (work / "half").touch()
        raise LabError("interrupted")

    def whole(work: Path) -> None:
        assert not list(work.iterdir())
        built.append(work)
        (work / "whole").touch()

    with pytest.raises(LabError):
        cache.built("things", "one", half)
    for _ in range(2):
        place = cache.built("things", "one", whole)
    assert [p.name for p in place.iterdir()] == ["whole"]
    assert len(built) == 1


def test_keys_tell_inputs_apart() -> None:
    """Inputs cut at another place give another key."""
    assert cache.key("ab", "c") != cache.key("a", "bc")


def test_unknown_case_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """A case that does not exist ends the run with code 2 and one line that names all cases."""
    need.root()
    assert matrix.main(["--case", "no-such-case"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "prestart-hook/crun" in error
