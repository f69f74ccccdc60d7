"""The matrix as a table, as a list of what failed, and as docs/proof.md."""

from typing import Any


def table(document: dict[str, Any]) -> str:
    """Give one table: a row for each case and stack, a column for each kernel."""
    return "\n".join("  ".join(c.ljust(w) for c, w in row).rstrip() for row in _sized(document))


def failures(document: dict[str, Any]) -> str:
    """Give what is wrong, cell by cell; empty if nothing is."""
    return "".join(
        f"FAILED {row['kernel']} x {row['stack']} x {row['case']}: {wrong}\n"
        for row in document["results"]
        for wrong in row["wrong"]
    )


def summary(document: dict[str, Any]) -> str:
    """Give the count of cells in one line."""
    failed = sum(bool(row["wrong"]) for row in document["results"])
    cells = len(document["results"])
    return f"{cells - failed} of {cells} cells as they must be, {document['seconds']} s"


def rows(document: dict[str, Any]) -> list[list[str]]:
    """Give the table as lists of cells, header first; a cell that failed is marked with !."""
    names = list(document["kernels"])
    told = {
        (r["kernel"], r["stack"], r["case"]): ("! " if r["wrong"] else "") + r["told"]
        for r in document["results"]
    }
    body = [
        [case, stack, *(told.get((k, stack, case), "") for k in names)]
        for case in document["cases"]
        for stack in document["stacks"]
    ]
    return [["case", "stack", *names], *body]


def _sized(document: dict[str, Any]) -> list[list[tuple[str, int]]]:
    cells = rows(document)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [list(zip(row, widths, strict=True)) for row in cells]


def proof(document: dict[str, Any], described: dict[str, str]) -> str:
    """Give docs/proof.md."""
    kernels = [
        ["kernel", "package version", "state of uretprobe"],
        *([n, k["package"], k["state"]] for n, k in document["kernels"].items()),
    ]
    told = sorted({p for versions in document["stacks"].values() for p in versions})
    lands = [
        ["stack", *told],
        *([name, *(v.get(p, "") for p in told)] for name, v in document["stacks"].items()),
    ]
    return _PROOF.format(
        summary=summary(document),
        kernels=_markdown(kernels),
        stacks=_markdown(lands),
        cases="\n".join(f"- **{name}**: {line}" for name, line in described.items()),
        table=_markdown(rows(document)),
    )


def _markdown(cells: list[list[str]]) -> str:
    head, *body = cells
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


_PROOF = """\
# Proof on the kernels that kill

This page is written by `tests/vm/run --write-proof`; a test compares its table with the cases.
"""
