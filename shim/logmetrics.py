"""What has been counted of the audit log since the first look, kept from one look to the next.

A counter must never go down, and a log that rotates forgets: so what was counted is kept in a file,
with the time up to which. A line is counted once it is some seconds old: who wrote it may have had
to wait for the log.
"""

import bisect
import os
import time
from collections import Counter
from typing import Any

from shim import atomic, files, logread, logsummary
from shim.errors import ShimError
from shim.startjson import dumps, loads

STATE = "/var/lib/seccomp-shim/metrics.json"
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_GRACE_SECONDS = 5
_BYTES = 1 << 20
_KINDS = {
    "adjustments": 3,  # mechanism, engine, start or exec
    "left_alone": 1,
    "errors": 1,
    "unverified": 1,
}


class Totals:
    """Counters by their labels, the buckets of the durations, and the time up to which."""

    def __init__(self) -> None:
        self.until = ""
        self.counts: dict[str, Counter[tuple[str, ...]]] = {kind: Counter() for kind in _KINDS}
        self.buckets = [0] * (len(BUCKETS) + 1)
        self.seconds = 0.0
        self.last = ""

    def add(self, event: dict[str, Any]) -> None:
        """Count one event."""
        kind, mechanism = event.get("event"), str(event.get("mechanism", ""))
        who = (mechanism, logsummary.engine(event), str(event.get("process", "start")))
        if kind == "adjusted":
            self.counts["adjustments"][who] += 1
            self.last = max(self.last, str(event.get("time", "")))
            if isinstance(took := event.get("duration_ms"), int | float):
                self.buckets[bisect.bisect_left(BUCKETS, took / 1000)] += 1
                self.seconds += took / 1000
        elif kind == "repeated" and isinstance(event.get("repeats"), int):
            self.counts["adjustments"][who] += event["repeats"]
        elif kind == "left-alone":
            self.counts["left_alone"][(logsummary.reason(str(event.get("reason", ""))),)] += 1
        if kind in ("adjusted", "verified") and event.get("verified", True) is None:
            self.counts["unverified"][(mechanism,)] += 1
        if logread.is_wrong(event):
            self.counts["errors"][(str(kind),)] += 1

    def document(self) -> dict[str, Any]:
        """Return all of it as JSON has it."""
        counts = {
            kind: [[*labels, number] for labels, number in sorted(of.items())]
            for kind, of in self.counts.items()
        }
        rest = {"buckets": self.buckets, "seconds": self.seconds, "last": self.last}
        return {"until": self.until, "counts": counts, **rest}


def counted(log: str, state: str | None = STATE) -> Totals:
    """Count what has come since the last look, and keep it in ``state``; None: of all that is kept.

    One process at a time, its caller sees to that. ShimError, OSError: it cannot be read or kept.
    """
    if state is None:
        return _counted(log, Totals())
    totals = _counted(log, _read(state))
    atomic.write_atomic(state, dumps(totals.document()).encode(), 0o600)
    return totals


def _counted(log: str, totals: Totals) -> Totals:
    horizon = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time.time() - _GRACE_SECONDS))
    for event in logread.after(log, totals.until):
        if str(event.get("time", "~")) <= horizon:
            totals.add(event)
    totals.until = max(totals.until, horizon)
    return totals


def _read(state: str) -> Totals:
    """Return what was kept; nothing yet where there is no file. ShimError: it is none of ours."""
    totals = Totals()
    try:
        kept = loads(files.read_regular(state, _BYTES, os.O_NOFOLLOW))
        totals.until, totals.last = str(kept["until"]), str(kept["last"])
        totals.buckets = [int(each) for each in kept["buckets"]]
        totals.seconds = float(kept["seconds"])
        for kind, labels in _KINDS.items():
            for *words, number in kept["counts"][kind]:
                if len(words) != labels:
                    raise ValueError(kind)
                totals.counts[kind][tuple(map(str, words))] = int(number)
        if len(totals.buckets) != len(BUCKETS) + 1:
            raise ValueError("buckets")
    except FileNotFoundError:
        return Totals()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        hint = "remove it to count anew"
        raise ShimError(f"is not what was counted: {error!r}", subject=state, hint=hint) from None
    return totals
