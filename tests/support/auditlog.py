"""The audit log as tests read it: each line must be one that docs/audit-line.schema.json knows."""

import json
import time
from functools import cache
from pathlib import Path
from typing import Any

from shim.log import settle
from support.checkout import CHECKOUT


def lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines of the log at ``path``, none without a log; each is held to the schema.

    With them those of processes that were killed before they could put them there.
    """
    if not path.exists():
        return []
    settle(str(path))
    found = [json.loads(line) for line in path.read_text().splitlines()]
    for line in found:
        _validator().validate(line)
    return found


def told(path: Path, container: str) -> list[str]:
    """Return the events of a container, once nothing of it waits beside the log any more."""
    deadline = time.monotonic() + 10
    while any(path.parent.glob(f".pending-{path.name}-*")) and time.monotonic() < deadline:
        lines(path)
        time.sleep(0.01)
    return [line["event"] for line in lines(path) if line["container"] == container]


@cache
def _validator() -> Any:
    import jsonschema  # not in the user lands whose own interpreters run parts of the tests

    schema = json.loads((CHECKOUT / "docs/audit-line.schema.json").read_text())
    return jsonschema.Draft202012Validator(schema)
