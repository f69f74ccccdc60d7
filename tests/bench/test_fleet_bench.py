"""The benchmark of fleets runs and says what it should."""

import json
import subprocess
from pathlib import Path

from support import need

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
