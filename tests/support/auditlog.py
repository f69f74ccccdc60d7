"""The audit log as tests read it: each line must be one that docs/audit-line.schema.json knows."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from support.checkout import CHECKOUT


def lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines of the log at ``path``, none without a log; each is held to the schema."""
    if not path.exists():
        return []
    found = [json.loads(line) for line in path.read_text().splitlines()]
    for line in found:
        _validator().validate(line)
    return found


@cache
def _validator() -> Any:
    import jsonschema  # not in the user lands whose own interpreters run parts of the tests

    schema = json.loads((CHECKOUT / "docs/audit-line.schema.json").read_text())
    return jsonschema.Draft202012Validator(schema)
