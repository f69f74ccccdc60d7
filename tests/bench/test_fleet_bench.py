"""The benchmark of fleets runs and says what it should."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support import need
from support.checkout import CHECKOUT

RUN = Path(__file__).with_name("run-fleet")


def test_one_small_round(tmp_path: Path) -> None:
    """Every row has its time and its ratio to the loop, in the figures and in the text."""
    need.root()
    need.program("jq")
    figures = tmp_path / "figures.json"
    command = [str(RUN), "--files=20", "--rounds=1", f"--json={figures}", f"--folder={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result = json.loads(figures.read_text())
    loop, *others = result["rows"]
    assert (loop["name"], loop["faster"]) == ("loop: jq, sync, mv", 1)
    assert len(others) == 3
    for row in result["rows"]:
        assert row["least_s"] <= row["median_s"]
        assert f"{row['name']:<32}{row['median_s']:>8.2f} s" in done.stdout


@pytest.mark.slow
def test_one_small_round_of_many_hosts(tmp_path: Path) -> None:
    """Every verb has done its work on every host, and its time is told beside the floor."""
    need.root()
    figures = tmp_path / "figures.json"
    command = [sys.executable, "-m", "bench.fleets", "--names=2", "--hosts=1", "--rounds=1"]
    environment = {**os.environ, "PYTHONPATH": f"{CHECKOUT}/tests"}
    command += ["--verbs", "--verify", f"--json={figures}"]
    done = subprocess.run(
        command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=True
    )
    seconds = json.loads(figures.read_text())["seconds"]
    assert seconds.keys() >= {"ping", "fleet facts", "fleet plan", "fleet apply", "fleet rollback"}
    for task, taken in seconds.items():
        assert f"{task:20} {taken[0]:6.2f} s" in done.stdout
