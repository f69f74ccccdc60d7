"""The benchmark runs and says what it should; what it measures is nobody's promise."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from bench import compare, dockers, report, stops, timing
from shim.errors import ShimError
from shim.host import ptrace
from support import need
from support.checkout import CHECKOUT
from support.containers import supported

RUN = Path(__file__).with_name("run")


def test_one_round_of_everything(tmp_path: Path) -> None:
    """Both sides of every comparison are in the figures and in the text, with their ratios."""
    need.kernel(supported(), "containers run here as root on x86-64 only")
    runtimes = [os.path.basename(need.program(name)) for name in ("runc", "crun")]
    figures = tmp_path / "figures.json"
    done = subprocess.run(
        [RUN, "--rounds", "1", "--json", figures], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    result = json.loads(figures.read_text())
    assert [row["name"] for row in result["processes"]][:1] == ["python3 -I -S -c pass"]
    names = [[row["name"] for row in rows] for rows in result.get("docker", [])]
    if dockers.available():
        commands = ("docker ps", "docker run")
        assert names == [[command, f"seccomp-shim {command}"] for command in commands]
    assert [one["runtime"] for one in result["wrapped"]] == runtimes
    for one in result["wrapped"]:
        assert len(one["state"]) == 2
        assert f"{one['run'][-1]['median_ms']:.2f}" in done.stdout
    assert [(one["runtime"], one["no_new_privileges"]) for one in result["starts"]] == [
        (runtime, nnp) for runtime in runtimes for nnp in (True, False)
    ]
    for one in result["starts"]:
        assert [row["name"] for row in one["rows"]] == ["bare", "hook, no-op", "hook, injection"]
        assert one["tracer"]["stops"] > 1
        assert f"{one['rows'][2]['median_ms']:.2f}" in done.stdout
    assert [(one["runtime"], one["no_new_privileges"]) for one in result["joins"]] == [
        (runtime, nnp) for runtime in runtimes for nnp in (True, False)
    ]
    for one in result["joins"]:
        assert (one["stops"] > 100) == (one["runtime"] == "runc")
        assert f"{one['rows'][2]['median_ms']:.2f}" in done.stdout
    assert {row["name"].partition(":")[0] for row in result["log"]} == set(runtimes)
    assert all(f"{row['after']:>9}{row['ratio']:>7}" in done.stdout for row in result["log"])
    for rows in (
        result["processes"],
        *(one["rows"] for one in result["joins"]),
        *result.get("docker", []),
        *(one[table] for one in result["wrapped"] for table in ("state", "run")),
        *([result["docker_wrapped"]] if "docker_wrapped" in result else []),
        *(one["rows"] for one in result["starts"]),
    ):
        assert rows[0]["ratio"] == 1
        assert all(row["least_ms"] <= row["median_ms"] for row in rows)
        for row in rows:
            assert row["ratio"] == pytest.approx(
                row["median_ms"] / rows[0]["median_ms"], abs=0.02, rel=0.02
            )


def test_two_checkouts_against_each_other(tmp_path: Path) -> None:
    """Starts of another checkout, here the same one, are in each row before this one's."""
    need.kernel(supported(), "containers run here as root on x86-64 only")
    runtimes = [need.program("crun")]
    result = compare.measure(tmp_path, CHECKOUT, runtimes, 1)
    assert result["before"] == result["now"] != ""
    assert [table["runtime"] for table in result["tables"]] == ["crun"]
    text = compare.text(result | {"machine": report.machine(runtimes), "rounds": 1})
    for row in (row for table in result["tables"] for row in table["rows"]):
        assert row["work"][0] <= row["whole"][0]
        assert f"{row['whole'][1]:.2f}" in text
        for before, now, ratio in (row["work"], row["whole"], row["times"]):
            assert ratio == pytest.approx(now / before, abs=0.02)


def test_what_is_no_checkout_is_not_compared(tmp_path: Path) -> None:
    """A directory without the program ends the comparison in one line."""
    done = subprocess.run([RUN, "--against", tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no checkout to compare with" in done.stderr
    assert done.stderr.count("\n") == 1


def test_every_round_runs_each_case_in_turn(tmp_path: Path) -> None:
    """A B, A B, after one round that is not counted: drift of the machine meets all cases alike."""
    trace = tmp_path / "trace"
    cases = [timing.Case(name, ["sh", "-c", f"printf {name} >>{trace}"]) for name in ("A", "B")]
    timed = timing.interleaved(cases, 3, tmp_path)
    assert trace.read_text() == "ABABABAB"
    assert [(one.name, len(one.times)) for one in timed] == [("A", 3), ("B", 3)]


def test_a_case_that_fails_ends_the_measurement(tmp_path: Path) -> None:
    """What did not do its work has no time; the error says what it printed."""
    case = timing.Case("broken", ["sh", "-c", "echo no such thing >&2; exit 3"])
    with pytest.raises(ShimError, match="broken: ended with 3: no such thing"):
        timing.once(case, tmp_path)


def test_rounds_must_be_a_positive_number() -> None:
    """Zero rounds have no median: refused with the usage."""
    done = subprocess.run([RUN, "--rounds", "0"], capture_output=True, text=True, check=False)
    assert (done.returncode, "usage: tests/bench/run" in done.stderr) == (2, True)


def test_a_stop_costs_something() -> None:
    """Both ways of waiting give a figure, and the knob that tells them apart is put back."""
    before = ptrace._SPINS
    figures = stops.measure(1, calls=50)
    assert set(figures) == {"looking_us", "sleeping_us"}
    assert before == ptrace._SPINS


def test_one_round_of_the_scan() -> None:
    """Both sides of the comparison are timed in one run."""
    need.root()
    run = RUN.with_name("run-scan")
    done = subprocess.run(
        [run, "--rounds", "1", "--processes", "20"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    for side in ("/proc/PID/status", "the whole scan of them", "A thread stood", "--pid N --json"):
        assert side in done.stdout
