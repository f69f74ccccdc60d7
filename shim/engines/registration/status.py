"""What ``status`` tells of an engine: typed here, and one JSON document of it."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from shim.engines.registration import NOBODY, Coverage


@dataclass(frozen=True, kw_only=True)
class StatusEntry:
    """An entry of ours in an engine's files: it names ``path``, which ``exists`` or does not.

    ``handler`` tells, of an engine's runtimes, which is ours and which is what ours calls.
    """

    file: str
    name: str
    path: str
    exists: bool
    handler: bool | None = None

    def document(self) -> dict[str, Any]:
        """Return the entry as ``--json`` has it."""
        told = {each.name: getattr(self, each.name) for each in fields(self)}
        return {key: value for key, value in told.items() if key != "handler" or value is not None}


@dataclass(frozen=True, kw_only=True)
class EngineStatus:
    """What is registered with an engine, and what the running one knows.

    None stands for what could not be told. ``in_use`` tells whether it calls us, or a container
    that runs does; ``unseen`` is what only root sees. Any of the ``problems`` makes the verb's exit
    status 1.
    """

    DOCUMENT: ClassVar[str]  # the keys of the engine's document, in their order

    engine: str
    present: bool
    registered: bool | None
    entries: Sequence[StatusEntry] = ()
    default: bool = False
    in_use: bool = False
    coverage: Coverage = NOBODY
    unseen: Sequence[str] = ()
    running: bool | None = None
    known: bool | None = None
    problems: Sequence[str] = ()
    notes: Sequence[str] = ()
    way: str | None = None

    @property
    def covers(self) -> str:
        """Return who is covered, while we are registered."""
        return self.coverage.covered if self.registered else ""

    @property
    def not_covered(self) -> str:
        """Return who is not covered, while we are registered."""
        return self.coverage.left_out if self.registered else ""

    @property
    def covers_all(self) -> bool:
        """Tell whether containers that ask for nothing are covered."""
        return bool(self.registered) and self.coverage.plain

    def document(self) -> dict[str, Any]:
        """Return the engine's part of ``status --json``."""
        return {key: _plain(getattr(self, key)) for key in self.DOCUMENT.split()}


class UnknownStatus(EngineStatus):
    """An engine of which nothing could be told; its one problem says why."""

    DOCUMENT = "engine present registered problems"


def unknown(engine: str, reason: str) -> EngineStatus:
    """Return the status of an engine of which nothing could be told, and why."""
    return UnknownStatus(engine=engine, present=True, registered=None, problems=[reason])


def _plain(value: Any) -> Any:
    if isinstance(value, StatusEntry):
        return value.document()
    return (
        value
        if isinstance(value, str) or not isinstance(value, Sequence)
        else [_plain(each) for each in value]
    )
