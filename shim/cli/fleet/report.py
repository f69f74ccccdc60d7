"""fleet report: a table, JSON lines, or a page of what is known of every host."""

import argparse
import json
from typing import Any

from shim import atomic
from shim.errors import ShimError, counted


def run(args: argparse.Namespace) -> int:
    """Tell of every host of the inventory; nobody is asked anything."""
    from shim.fleet import report, store
    from shim.fleet.ansible import AnsibleOptions, hosts

    way = AnsibleOptions(tuple(args.inventory), args.limit, options=args.ansible)
    known = store.Store(args.state or store.directory())
    document = report.document(known, hosts(way), ", ".join(args.inventory))
    if args.html:
        _write(args.html, document)
        if not args.json:
            print(f"{args.html}: {counted(len(document['hosts']), 'host')}")
            return 0
    if args.json:
        for each in document["hosts"]:
            print(json.dumps(each))
        return 0
    _show(document)
    return 0


def _show(document: dict[str, Any]) -> None:
    from shim.cli.output import table

    urgency = list(document["verdicts"])
    hosts = sorted(document["hosts"], key=lambda each: urgency.index(each["verdict"]))
    rows: list[tuple[str, ...]] = [
        (
            each["host"],
            each["verdict"],
            each["kernel"] or "?",
            counted(each["changed"], "file") if each["changed"] else "",
            each["why"],
        )
        for each in hosts
    ]
    print(table(("HOST", "VERDICT", "KERNEL", "CHANGED", "WHY"), rows), end="")
    counts = [sum(each["verdict"] == verdict for each in hosts) for verdict in urgency]
    told = [f"{n} {verdict}" for verdict, n in zip(urgency, counts, strict=True) if n]
    print(f"{counted(len(hosts), 'host')}: {', '.join(told)}")
    if document["runs"]:
        print()
        rows = [
            (
                each["run"],
                each["kind"],
                each["by"],
                _results(each),
                each["ended"] or "killed, or at work",
            )
            for each in document["runs"]
        ]
        print(table(("RUN", "WHAT", "BY", "HOSTS", "ENDED"), rows), end="")


def _results(run: dict[str, Any]) -> str:
    return ", ".join(f"{number} {result}" for result, number in run["hosts"].items())


def _write(path: str, document: dict[str, Any]) -> None:
    from shim.fleet.page import page

    try:
        atomic.write_atomic(path, page(document).encode())
    except OSError as error:
        raise ShimError(f"cannot be written: {error.strerror}", subject=path) from None
