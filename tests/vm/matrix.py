"""Run kernels x stacks x cases: build what is missing, boot, collect, print one table."""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vm import cache, cases, cells, debian, given, guest, initramfs, kernels, report, stacks, victim
from vm.errors import LabError

LIBRARIES = [str(path) for path in (given.CHECKOUT / ".venv/lib").glob("python3.*/site-packages")]
EPILOG = """\
Everything runs as root, under emulation, without KVM; guests cannot write to this machine's root.
Built kernels and trees are kept in SHIM_CACHE (default /var/cache/seccomp-shim), the logs of each
run in its folder runs/. Packages that this machine needs: tests/vm/packages.txt. Another archive
than deb.debian.org is named by SHIM_MIRROR and SHIM_MIRROR_SECURITY.

exit statuses: 0 every cell as it must be, 1 not, 2 error

examples:
  tests/vm/run                                        the whole matrix
  tests/vm/run --sample                               a sample that covers it, as in CI
  tests/vm/run --build                                build what it needs, boot nothing
  tests/vm/run --kernel affected --case control       one row on one kernel
  tests/vm/run --kernel affected --stack trixie --shell
  tests/vm/run --case perf --onto /var/cache/seccomp-shim/runs/RUN --write-proof
"""


@dataclass(frozen=True)
class Ready:
    """All that the guests need, built."""

    images: dict[str, kernels.Image]
    trees: dict[str, stacks.Tree]
    victim: Path


def main(argv: list[str]) -> int:
    """Parse the command line, run, give 0 if every cell passed, 1 if not, 2 on an error."""
    args = _parser().parse_args(argv)
    try:
        return _main(args)
    except (LabError, PermissionError) as error:
        print(f"tests/vm/run: {error}", file=sys.stderr)
        return 2


def _main(args: argparse.Namespace) -> int:
    if os.geteuid():
        raise LabError("only root can read all of this machine's files for the guests: use sudo")
    chosen_cases = [c for c in cases.names() if not args.case or _chosen(c, args.case)]
    if not chosen_cases:
        raise LabError(f"no such case; there are: {' '.join(cases.names())}")
    if args.write_proof and given.commit().endswith("+"):
        raise LabError("what a proof is of must be committed first")
    if args.onto:
        earlier = json.loads((Path(args.onto) / "matrix.json").read_text())
        if earlier.get("digest") != given.digest():
            raise LabError(f"what {args.onto} tested has changed since: run the whole matrix again")
    chosen_kernels = [k for k in kernels.KERNELS if not args.kernel or k.name in args.kernel]
    chosen_stacks = [s for s in stacks.STACKS if not args.stack or s.name in args.stack]
    if args.refresh:
        for suite in ("bookworm", "trixie", "sid"):
            debian.refresh(suite)
    ready = _build(chosen_kernels, chosen_stacks)
    cache.prune()
    if args.build:
        return 0
    folder = cache.root() / "runs" / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    if args.shell:
        kernel = chosen_kernels[0]
        return guest.interactive(
            _prepare(kernel, chosen_stacks[:1], ready, folder / kernel.name, [], args)
        )
    began = time.monotonic()
    among = cells.sample() if args.sample else cells.every()
    guests = [
        (kernel, stack, [c for c in chosen_cases if (kernel, stack, c) in among])
        for kernel in chosen_kernels
        for stack in chosen_stacks
    ]
    guests = [one for one in guests if one[2]]
    boots = [
        # All at once, before any of them runs: one run tests one state of the tree.
        _prepare(k, [s], ready, folder / f"{k.name}-{s.name}", some, args)
        for k, s, some in guests
    ]
    with ThreadPoolExecutor(args.jobs) as pool:
        ends = pool.map(lambda b: guest.run(b, b.lab.parent / "console.log", args.seconds), boots)
        results = [
            row
            for (kernel, stack, some), boot, trouble in zip(guests, boots, ends, strict=True)
            for row in _results(kernel, [stack], some, boot.lab, trouble)
        ]
    document: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "commit": given.commit(),
        "digest": given.digest(),
        "seconds": round(time.monotonic() - began),
        "kernels": {
            k.name: {
                "told": k.told,
                "state": k.state,
                "release": _release(folder, k),
                "package": ready.images[k.name].version,
            }
            for k in chosen_kernels
        },
        "stacks": {s.name: ready.trees[s.name].versions for s in chosen_stacks},
        "cases": chosen_cases,
        "results": results,
    }
    if args.onto:
        document = report.onto(earlier, document)
    text = json.dumps(document, indent=1) + "\n"
    for target in filter(None, (folder / "matrix.json", args.json and Path(args.json))):
        target.write_text(text)
    print(report.table(document))
    print(report.failures(document), end="")
    print(f"{report.summary(document)}; logs and matrix.json: {folder}")
    passed = not any(row["wrong"] for row in document["results"])
    if args.write_proof:
        if not (passed and whole(document)):
            raise LabError("docs/proof.md is written from a whole matrix that passed, only")
        given.PROOF.write_text(report.proof(document, cases.described()))
    return 0 if passed else 1


def _build(wanted: list[kernels.Kernel], lands: list[stacks.Stack]) -> Ready:
    return Ready(
        {k.name: kernels.ready(k) for k in wanted},
        {s.name: stacks.ready(s) for s in lands},
        victim.ready(),
    )


def _results(
    kernel: kernels.Kernel, lands: list[stacks.Stack], chosen: list[str], lab: Path, trouble: str
) -> list[dict[str, Any]]:
    """Return a result for every cell of ``kernel``, those too that the guest never came to."""
    path = lab / "results.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    found = {(row["stack"], row["case"]): row for row in map(json.loads, lines)}
    trouble = trouble or f"the guest ended without it; its console: {lab.parent}/console.log"
    missing = {"told": "no result", "wrong": [trouble], "seconds": 0}
    return [
        found.get(
            (stack.name, case),
            {"kernel": kernel.name, "stack": stack.name, "case": case, **missing},
        )
        for stack in lands
        for case in chosen
    ]


def _release(folder: Path, kernel: kernels.Kernel) -> str:
    """Return the release that the guests of ``kernel`` said they run."""
    said = [path.read_text() for path in folder.glob(f"{kernel.name}-*/lab/release")]
    return said[0] if said else ""


def whole(document: dict[str, Any]) -> bool:
    """Tell whether every cell that there is has a result in ``document``."""
    found = {(row["kernel"], row["stack"], row["case"]) for row in document["results"]}
    return all((kernel.name, stack.name, case) in found for kernel, stack, case in cells.every())


def _prepare(
    kernel: kernels.Kernel,
    lands: list[stacks.Stack],
    ready: Ready,
    folder: Path,
    chosen: list[str],
    args: argparse.Namespace,
) -> guest.Boot:
    """Lay out what the guest sees: the plan, the victim, a copy of the tree under test."""
    lab = folder / "lab"
    given.copy(lab / "tree")
    stacks.compile_for([ready.trees[land.name] for land in lands], lab / "tree")
    subprocess.run(["tar", "-cf", lab / "tree.tar", "-C", lab / "tree", "."], check=True)
    (lab / "bin").mkdir()
    shutil.copy(ready.victim, lab / "bin" / "victim")
    plan = {
        "kernel": {"name": kernel.name, "state": kernel.state},
        "stacks": [
            {
                "name": s.name,
                "root": str(ready.trees[s.name].root),
                "knows_uretprobe": s.knows_uretprobe,
                # Debian 12's SDK for Docker is older than we need.
                "libraries": [] if s.suite else LIBRARIES,
            }
            for s in lands
        ],
        "cases": chosen,
        "shell": args.shell,
    }
    (lab / "plan.json").write_text(json.dumps(plan, indent=1))
    image = ready.images[kernel.name]
    return guest.Boot(image.bzimage, initramfs.ready(image.modules), lab, args.cpus)


def _chosen(case: str, wanted: list[str]) -> bool:
    return case in wanted or case.partition("/")[0] in wanted


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tests/vm/run",
        description="Put real uretprobes on real containers, on kernels that kill and that do not.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=EPILOG,
    )
    add = parser.add_argument
    names = [k.name for k in kernels.KERNELS]
    add("--kernel", action="append", choices=names, help="this kernel only; may be given again")
    names = [s.name for s in stacks.STACKS]
    add("--stack", action="append", choices=names, help="this user land only; may be given again")
    add("--case", action="append", help="this case only (control, or control/runc)")
    add("--sample", action="store_true", help="of these, the sample that CI runs")
    add("--build", action="store_true", help="build what they need, and run nothing")
    add(
        "--shell",
        action="store_true",
        help="boot the first chosen kernel, give a shell in the stack",
    )
    add("--json", metavar="FILE", help="write the results there too")
    add(
        "--onto",
        metavar="FOLDER",
        help="put the results in the place of those that an earlier run left in its FOLDER",
    )
    add("--write-proof", action="store_true", help="write docs/proof.md from this run")
    add("--refresh", action="store_true", help="look for newer Debian packages first")
    add("--jobs", type=int, default=2, help="guests at a time (default: 2)")
    told = "processors of a guest (default: 1, all that the affected kernel uses)"
    add("--cpus", type=int, default=1, help=told)
    add("--seconds", type=int, default=2400, help="time limit of a guest (default: 2400)")
    return parser
