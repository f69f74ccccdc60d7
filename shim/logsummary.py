"""What the lines of the audit log come to: by container, and in all. Pure."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from shim.errors import counted
from shim.logread import covered, is_wrong

_BY = {
    "name": "by name",
    "raw-bpf": "by program",
    "filter-injection": "by injection",
    "profile": "by profile",
}
# What a reason for leaving a container alone comes to, by words of it.
_REASONS = (
    ("explicit-deny", "explicit deny"),
    ("denies it by name", "explicit deny"),
    ("does not let a filter deny", "not needed by this kernel"),
    ("lets it through already", "allowed already"),
    ("default-allows", "allowed already"),
    ("in its place already", "allowed already"),
    ("allows", "allowed already"),
    ("no filter", "no filter"),
    ("no profile", "no filter"),
    ("unconfined", "no filter"),
    ("ended before", "ended before its filter"),
)
_FAILURES = ("failed", "refused")


class Summary:
    """What the log tells of one container, or of all.

    ``adjusted`` and ``execs`` count by mechanism, ``alone`` by reason; ``unverified`` are those of
    which nobody could tell, ``begun`` those that were announced and not done.
    """

    def __init__(self) -> None:
        self.adjusted: Counter[str] = Counter()
        self.execs: Counter[str] = Counter()
        self.alone: Counter[str] = Counter()
        self.wrong: list[dict[str, Any]] = []
        self.acknowledged = 0
        self.unverified = 0
        self.begun = 0
        self.verified = False
        self.last = ""

    def line(self) -> str:
        """Return it in one line."""
        parts = [f"{sum(self.adjusted.values())} adjusted{_split(self.adjusted)}"]
        if self.execs:
            parts.append(f"{counted(sum(self.execs.values()), 'exec')}{_split(self.execs)}")
        if self.alone:
            parts.append(f"{sum(self.alone.values())} left alone: {_reasons(self.alone)}")
        if self.unverified:
            parts.append(f"{self.unverified} could not be verified")
        if self.begun:
            parts.append(f"{self.begun} begun and not finished")
        parts.append(f"{len(self.wrong)} wrong")
        if self.acknowledged:
            parts[-1] += f", {self.acknowledged} acknowledged"
        return "; ".join(parts)

    def short(self) -> str:
        """Return what matters of one container."""
        if self.wrong:
            worst = self.wrong[-1]
            more = f" (and {len(self.wrong) - 1} more)" if len(self.wrong) > 1 else ""
            return f"WRONG: {worst['event']}: {worst.get('reason') or 'no reason told'}{more}"
        parts = []
        for mechanism, number in self.adjusted.items():
            times = f" {number} times" if number > 1 else ""
            parts.append(f"adjusted {_by(mechanism)}{times}")
        if self.unverified:
            parts.append("not verified")
        elif self.verified:
            parts.append("verified")
        if self.execs:
            parts.append(counted(sum(self.execs.values()), "exec"))
        if self.alone:
            parts.append(f"left alone: {', '.join(self.alone)}")
        if self.begun:
            parts.append("begun and not finished")
        if self.acknowledged:
            parts.append(f"{self.acknowledged} wrong, acknowledged")
        return ", ".join(parts)

    def document(self) -> dict[str, Any]:
        """Return it for a program."""
        return {
            "adjusted": dict(self.adjusted),
            "execs": dict(self.execs),
            "left_alone": dict(self.alone),
            "unverified": self.unverified,
            "unfinished": self.begun,
            "wrong": len(self.wrong),
            "acknowledged": self.acknowledged,
        }

    def add(self, event: dict[str, Any], *, dealt_with: bool) -> None:
        """Count one line."""
        self.last = max(self.last, str(event.get("time", "")))
        kind, mechanism = event.get("event"), str(event.get("mechanism", ""))
        if is_wrong(event):
            self.acknowledged += dealt_with
            if not dealt_with:
                self.wrong.append(event)
            if kind in _FAILURES:
                self.begun = max(0, self.begun - 1)
        if kind == "adjusting":
            self.begun += 1
        elif kind == "repeated":
            self.execs[mechanism] += int(event.get("repeats", 0))
        elif kind == "left-alone":
            self.begun = max(0, self.begun - 1)
            self.alone[reason(str(event.get("reason", "")))] += 1
        elif kind == "adjusted":
            self.begun = max(0, self.begun - 1)
            (self.execs if event.get("process") == "exec" else self.adjusted)[mechanism] += 1
        if kind in ("adjusted", "verified") and "verified" in event:
            self.verified = self.verified or event["verified"] is True
            self.unverified += event["verified"] is None


def summarize(
    events: Iterable[dict[str, Any]], acknowledged: list[dict[str, Any]]
) -> tuple[Summary, dict[str, Summary]]:
    """Return what lines tell, the oldest first: of all, and of each container, the latest last."""
    whole = Summary()
    each_of: dict[str, Summary] = {}
    for event in events:
        if not _counts(event):
            continue
        dealt_with = covered(event, acknowledged)
        whole.add(event, dealt_with=dealt_with)
        container = str(event.get("container", ""))
        if container or is_wrong(event):
            one = each_of.pop(container, None) or Summary()
            one.add(event, dealt_with=dealt_with)
            each_of[container] = one
    return whole, each_of


def reason(text: str) -> str:
    """Return what a reason for leaving a container alone comes to."""
    return next((short for words, short in _REASONS if words in text), "other reasons")


def engine(event: dict[str, Any]) -> str:
    """Return whose container an event is of, as the directory of its bundle tells, if it does."""
    bundle = str(event.get("bundle", ""))
    if event.get("engine") or "/io.containerd.runtime." in bundle:
        return str(event.get("engine") or ("docker" if "/moby/" in bundle else "containerd"))
    if "/overlay-containers/" in bundle:  # of containers/storage, whose run directory is CRI-O's
        return "cri-o" if bundle.startswith("/run/") else "podman"
    return ""


def _counts(event: dict[str, Any]) -> bool:
    kinds = ("adjusting", "adjusted", "verified", "repeated", "left-alone")
    return event.get("event") in kinds or is_wrong(event)


def _by(mechanism: str) -> str:
    return _BY.get(mechanism, f"by {mechanism}" if mechanism else "otherwise")


def _split(numbers: Counter[str]) -> str:
    told_ = ", ".join(f"{number} {_by(name)}" for name, number in numbers.most_common())
    return f": {told_}" if told_ else ""


def _reasons(numbers: Counter[str]) -> str:
    if len(numbers) == 1:
        return next(iter(numbers))
    return ", ".join(f"{number} {name}" for name, number in numbers.most_common())
