"""What patching many profiles costs: ``patch --all`` beside the loop that a user would write.

Every round makes the same profiles anew for each row and runs each row once. The loop makes the
same change with jq, flushes the new file and renames it over the old one; it keeps no backup, no
journal, no log, and looks at no file before. Times are of whole processes, by the clock.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from shim import data

_KUBELET = "root/var/lib/kubelet/seccomp"
_LOOP = """
find "$1" -name '*.json' | while read -r file; do
    jq --tab '.syscalls |= [{names: ["uretprobe", "uprobe"], action: "SCMP_ACT_ALLOW"}] + .' \
        "$file" >"$file.new" && chmod --reference="$file" "$file.new" &&
        sync "$file.new" && mv "$file.new" "$file"
done
"""
_LOOP_NAME = "loop: jq, sync, mv"
_LOG = """
if [ -d /etc/seccomp-shim ]; then mount -t tmpfs none /etc/seccomp-shim; fi
mount -t tmpfs none /var/log && mkdir /var/log/seccomp-shim
mount --bind "$0" /var/log/seccomp-shim
exec "$@"
"""


def main(argv: list[str]) -> int:
    """Measure, print and, if asked to, keep the figures."""
    parser = argparse.ArgumentParser("tests/bench/run-fleet", description=__doc__)
    parser.add_argument("--files", type=int, default=10_000, metavar="N", help="default: 10000")
    parser.add_argument(
        "--loop-files",
        type=int,
        metavar="N",
        help="let the loop change only N of them and reckon the rest from that: it takes minutes",
    )
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="default: 3")
    parser.add_argument("--folder", help="where the files are made: a real disk (default: TMPDIR)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the figures as JSON")
    args = parser.parse_args(argv)
    result = measure(args.files, args.loop_files or args.files, args.rounds, args.folder)
    print(text(result))
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


def measure(files: int, loop_files: int, rounds: int, folder: str | None) -> dict[str, Any]:
    """Measure every row ``rounds`` times with ``files`` profiles, the loop with ``loop_files``."""
    rows = {
        _LOOP_NAME: (_loop, min(files, 10)),
        "patch --all, 10 contents": (_patch, min(files, 10)),
        "patch --all, all different": (_patch, files),
        "rollback, all different": (_rollback, files),
    }
    times: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(rounds):
        for name, (step, contents) in rows.items():
            with tempfile.TemporaryDirectory(prefix="seccomp-shim-bench-", dir=folder) as made:
                count = loop_files if step is _loop else files
                times[name].append(step(Path(made), count, contents) * files / count)
    medians = {name: statistics.median(each) for name, each in times.items()}
    base = medians[_LOOP_NAME]
    return {
        "files": files,
        "loop_files": loop_files,
        "rounds": rounds,
        "load": Path("/proc/loadavg").read_text(encoding="ascii").split()[:3],
        "rows": [
            {"name": name, "median_s": median, "least_s": min(times[name]), "faster": base / median}
            for name, median in medians.items()
        ],
    }


def text(result: dict[str, Any]) -> str:
    """Lay the result out for reading."""
    lines = [
        f"{result['files']} profiles, {result['rounds']} rounds, "
        f"load average after: {' '.join(result['load'])}; "
        f"the loop did {result['loop_files']} and is reckoned from that",
        f"{'':<32}{'median':>10}{'least':>10}{'faster':>9}",
    ]
    for row in result["rows"]:
        lines.append(
            f"{row['name']:<32}{row['median_s']:>8.2f} s{row['least_s']:>8.2f} s"
            f"{row['faster']:>8.1f}x"
        )
    return "\n".join(lines)


def _make(folder: Path, files: int, contents: int) -> Path:
    """Make profiles like Docker's, in directories of 500, ``contents`` of them different."""
    profile = json.loads((data.directory("profiles") / "docker/default.json").read_text())
    texts = [json.dumps({**profile, "x": index}, indent="\t") for index in range(contents)]
    top = folder / _KUBELET
    for index in range(files):
        place = top / str(index // 500)
        if index % 500 == 0:
            place.mkdir(parents=True)
        (place / f"{index}.json").write_text(texts[index % contents])
    subprocess.run(["sync"], check=True)
    return top


def _loop(folder: Path, files: int, contents: int) -> float:
    top = _make(folder, files, contents)
    return _timed(["sh", "-c", _LOOP, "loop", str(top)], top, files)


def _patch(folder: Path, files: int, contents: int) -> float:
    top = _make(folder, files, contents)
    words = ["patch", "--all", "--yes", "--when=always", f"--root={folder / 'root'}"]
    return _timed(_shim(folder, *words), top, files)


def _rollback(folder: Path, files: int, contents: int) -> float:
    _patch(folder, files, contents)
    return _timed(_shim(folder, "rollback", "--last"), folder / _KUBELET, 0)


def _shim(folder: Path, *words: str) -> list[str]:
    """Return the command, with an audit log on the same disk as all else."""
    log = folder / "log"
    log.mkdir(exist_ok=True)
    program = [sys.executable, "-m", "shim", *words, f"--state={folder / 'state'}"]
    return ["unshare", "-m", "sh", "-c", _LOG, str(log), *program]


def _timed(command: list[str], top: Path, patched: int) -> float:
    """Run to the end; see that as many files are patched as should be."""
    before = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seconds = time.monotonic() - before
    found = sum(b"uretprobe" in path.read_bytes() for path in top.rglob("*.json"))
    if found != patched:
        raise SystemExit(f"{found} files are patched, not {patched}")
    return seconds


if __name__ == "__main__":
    if not shutil.which("jq"):
        raise SystemExit("jq is not installed")
    raise SystemExit(main(sys.argv[1:]))
