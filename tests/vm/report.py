"""The matrix as a table, as a list of what failed, and as docs/proof.md."""

import operator
from collections import Counter
from pathlib import Path
from typing import Any

NOT_RUN = "-"
# What scan says of a process, in a reader's words, and what must happen then.
SAID = {"dies": "would die", "safe": "safe"}
RIGHT = {("dies", "died"), ("safe", "lived")}
TEMPLATE = Path(__file__).parent / "proof.md.in"


def table(document: dict[str, Any]) -> str:
    """Return one table: a row for each case and stack, a column for each kernel."""
    return "\n".join("  ".join(c.ljust(w) for c, w in row).rstrip() for row in _sized(document))


def failures(document: dict[str, Any]) -> str:
    """Return what is wrong, cell by cell; empty if nothing is."""
    return "".join(
        f"FAILED {row['kernel']} x {row['stack']} x {row['case']}: {wrong}\n"
        for row in document["results"]
        for wrong in row["wrong"]
    )


def summary(document: dict[str, Any]) -> str:
    """Return the count of cells in one line."""
    failed = sum(bool(row["wrong"]) for row in document["results"])
    total = len(document["results"])
    minutes, seconds = divmod(document["seconds"], 60)
    again = f" ({document['again']} run again)" if document.get("again") else ""
    return f"{total - failed} of {total} cells as they must be{again}, {minutes} min {seconds} s"


def onto(earlier: dict[str, Any], later: dict[str, Any]) -> dict[str, Any]:
    """Return the document of ``earlier`` with the cells that were run again in ``later``."""
    key = operator.itemgetter("kernel", "stack", "case")
    again = {key(row): row for row in later["results"]}
    kept = [again.pop(key(row), row) for row in earlier["results"]]
    return {
        **later,
        "seconds": earlier["seconds"] + later["seconds"],
        "again": earlier.get("again", 0) + len(later["results"]),
        **{part: {**earlier[part], **later[part]} for part in ("kernels", "stacks")},
        "cases": [*dict.fromkeys([*earlier["cases"], *later["cases"]])],
        "results": [*kept, *again.values()],
    }


def rows(document: dict[str, Any]) -> list[list[str]]:
    """Return the table as lists of cells, header first; a cell that failed is marked with !."""
    names = list(document["kernels"])
    told = {
        (r["kernel"], r["stack"], r["case"]): ("! " if r["wrong"] else "") + r["told"]
        for r in document["results"]
    }
    body = [
        [case, stack, *(told.get((k, stack, case), NOT_RUN) for k in names)]
        for case in document["cases"]
        for stack in document["stacks"]
    ]
    return [["case", "stack", *names], *body]


def _sized(document: dict[str, Any]) -> list[list[tuple[str, int]]]:
    whole = rows(document)
    widths = [max(map(len, column)) for column in zip(*whole, strict=True)]
    return [list(zip(row, widths, strict=True)) for row in whole]


def cells(text: str) -> list[list[str]]:
    """Read the last table of a Markdown text back: its rows as lists of cells, header first."""
    last = text[text.rindex("\n\n|") :].strip().split("\n\n")[0].splitlines()
    found = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in last]
    return [found[0], *found[2:]]


def foretold(document: dict[str, Any]) -> tuple[list[list[str]], list[list[str]]]:
    """Return two tables of what scan said of containers and what happened to them: counts, kinds.

    The counts are of the four cases that there should be, and of any other that there was; of the
    kinds there is a row each, a column for each kernel and stack. What was told wrongly has a !.
    """
    seen = {
        (each["kind"], f"{row['kernel']}, {row['stack']}"): (each["said"], each["happened"])
        for row in document["results"]
        for each in row.get("kinds", [])
    }
    fates = {pair: _fate(pair[1]) for pair in seen.values()}
    count = Counter((said, fates[said, happened]) for said, happened in seen.values())
    heads = [*dict.fromkeys(["died", "lived", *fates.values()])]
    counts = [
        ["scan said", *heads],
        *(
            [SAID.get(said, said), *(str(count[said, fate]) for fate in heads)]
            for said in dict.fromkeys([*SAID, *(said for said, _ in count)])
        ),
    ]
    told = {
        key: ("" if (pair[0], fates[pair]) in RIGHT else "! ")
        + f"{SAID.get(pair[0], pair[0])} -> {pair[1]}"
        for key, pair in seen.items()
    }
    places = [*dict.fromkeys(place for _, place in seen)]
    kinds = [
        ["kind", *places],
        *(
            [kind, *(told.get((kind, place), NOT_RUN) for place in places)]
            for kind in dict.fromkeys(kind for kind, _ in seen)
        ),
    ]
    return counts, kinds


def _fate(happened: str) -> str:
    return "died" if happened.startswith("SIG") else {"lives": "lived"}.get(happened, happened)


def proof(document: dict[str, Any], described: dict[str, str]) -> str:
    """Return docs/proof.md for a matrix; ``described`` gives each case's own words."""
    kernels = [
        ["kernel", "what it is", "release", "package", "uretprobe"],
        *(
            [name, k["told"], k["release"], k["package"], k["state"]]
            for name, k in document["kernels"].items()
        ),
    ]
    packages = list(next(iter(document["stacks"].values())))
    lands = [
        ["stack", *packages],
        *([name, *versions.values()] for name, versions in document["stacks"].items()),
    ]
    counts, kinds = foretold(document)
    return TEMPLATE.read_text().format(
        summary=summary(document),
        **{key: document[key] for key in ("date", "commit", "digest")},
        kernels=_markdown(kernels),
        stacks=_markdown(lands),
        cases="\n".join(
            f"- **{name}**: {line.replace('``', '`')}" for name, line in described.items()
        ),
        foretold=_markdown(counts),
        kinds=_markdown(kinds),
        table=_markdown(rows(document)),
    )


def _markdown(table_rows: list[list[str]]) -> str:
    head, *body = table_rows
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
