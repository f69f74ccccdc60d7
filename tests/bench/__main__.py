"""The benchmark's one command; tests/bench/run starts it."""

import argparse
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench import (
    compare,
    denials,
    dockers,
    joins,
    logbytes,
    processes,
    report,
    starts,
    stops,
    wrappers,
)
from shim.errors import ShimError
from shim.host.cache import facts
from support.containers import Lab, supported

_ABOUT = """\
Measure what the prestart hook costs: as a process against a bare interpreter and Debian's
oci-seccomp-bpf-hook (where installed), and in whole container starts under runc and crun (where
installed), with nothing to do and with an injection; what the wrapper costs for a process that
joins a container; what the verb docker costs in front of docker (where installed); and what the
verb denials costs those whom it watches. Needs root on x86-64; takes some ten seconds a round."""


def main(argv: list[str]) -> int:
    """Measure, print and, if asked to, keep the figures."""
    parser = argparse.ArgumentParser(
        "tests/bench/run", description=_ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=_positive, default=40, metavar="N", help="default: 40")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the figures as JSON")
    parser.add_argument(
        "--against",
        type=Path,
        metavar="DIR",
        help="compare starts with those of another checkout instead (as of git worktree add)",
    )
    args = parser.parse_args(argv)
    try:
        result = measure(args.rounds, args.against and args.against.resolve())
    except (ShimError, OSError) as error:
        print(f"tests/bench/run: {error}", file=sys.stderr)
        return 2
    print(compare.text(result) if args.against else report.text(result))
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


def measure(rounds: int, against: Path | None = None) -> dict[str, Any]:
    """Measure everything, ``rounds`` times each, or the starts alone ``against`` a checkout's."""
    if not supported():
        raise ShimError("containers are run here as root on x86-64 only")
    runtimes = [path for name in ("runc", "crun") if (path := shutil.which(name))]
    with tempfile.TemporaryDirectory(prefix="seccomp-shim-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        if against:
            machine = {"machine": report.machine(runtimes), "rounds": rounds}
            return machine | compare.measure(folder, against, runtimes, rounds)
        result: dict[str, Any] = {
            "machine": report.machine(runtimes),
            "rounds": rounds,
            "state": facts()["syscalls"]["uretprobe"]["state"],
            "processes": processes.measure(_lab(folder / "processes", "runc"), rounds),
            "starts": [],
            "stop": stops.measure(rounds),
            "denials": denials.measure(rounds),
        }
        if dockers.available():
            result["docker"] = dockers.measure(_folder(folder / "docker"), rounds)
            wrapped = _folder(folder / "docker-wrapped")
            result["docker_wrapped"] = wrappers.measure_docker(wrapped, rounds)
        result["wrapped"] = [
            wrappers.measure(_folder(folder / f"wrapped-{os.path.basename(each)}"), each, rounds)
            for each in runtimes
        ]
        result["joins"] = [
            joins.measure(
                _folder(folder / f"join-{os.path.basename(runtime)}-{no_new_privileges}"),
                runtime,
                rounds,
                no_new_privileges=no_new_privileges,
            )
            for runtime in runtimes
            for no_new_privileges in (True, False)
        ]
        result["log"] = [
            row
            for each in runtimes
            for row in logbytes.measure(_folder(folder / f"log-{os.path.basename(each)}"), each)
        ]
        for runtime in runtimes:
            lab = _lab(folder / os.path.basename(runtime), runtime)
            for no_new_privileges in (True, False):
                result["starts"].append(
                    starts.measure(lab, rounds, no_new_privileges=no_new_privileges)
                )
    return result


def _lab(folder: Path, runtime: str) -> Lab:
    return Lab(_folder(folder), runtime)


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
