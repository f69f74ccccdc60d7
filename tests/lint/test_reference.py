"""docs/reference.md has every setting, event and field once."""

import json
import re

from shim import config
from support.checkout import CHECKOUT

_PAGE = (CHECKOUT / "docs/reference.md").read_text()
_SCHEMA = json.loads((CHECKOUT / "docs/audit-line.schema.json").read_text())


def _table(heading: str) -> list[str]:
    """Return the names in the first column of the table under ``heading``, in order."""
    section = _PAGE.split(f"{heading}\n", 1)[1].split("\n#", 1)[0]
    rows = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row)]


def test_every_setting_is_explained_once() -> None:
    """The table of settings is the program's own list, in its order."""
    assert _table("## Settings") == list(config.DEFAULTS)


def test_every_event_is_explained_once() -> None:
    """The table of events names those of the schema."""
    events = _table("### Events")
    assert sorted(events) == sorted(_SCHEMA["properties"]["event"]["enum"])


def test_every_field_is_explained_once() -> None:
    """The table of fields names those of the schema, in its order."""
    fields = _table("### Fields")
    assert sorted(fields) == sorted(_SCHEMA["properties"])
    assert len(set(fields)) == len(fields)
