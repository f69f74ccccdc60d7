"""The report on many hosts as one HTML page that needs nothing else: no network, no JavaScript.

All that hosts have told is text to the page and nothing more: Jinja2 escapes it, and control
characters are shown as everywhere else. Style and script are allowed by their hashes alone.
"""

import base64
import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from itertools import chain, groupby
from operator import itemgetter
from typing import Any, NamedTuple
from urllib.parse import urlencode

from shim.errors import ShimError, printable
from shim.fleet.report import files_now

# The call whose state tells kernels apart, and its states in order of urgency.
_CALL = "uretprobe"
_UNTOLD = "no facts"
_STATES = ("filtered", "unknown", _UNTOLD, "exempt", "absent")
# Verdicts on hosts where something is left to do.
_LEFT = ("exposed", "failed", "unreachable", "not asked")
_CHANGED = ("changed", "rolled back", "not changed")
_HUNK = re.compile(r"@@ -[0-9]+(?:,([0-9]{1,9}))? \+[0-9]+(?:,([0-9]{1,9}))? @@")
_TIME = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})T([0-9]{2}:[0-9]{2}):[0-9.]+Z")


class _Host(NamedTuple):
    """A host, and what it is filtered by; ``patched`` files that have not been rolled back."""

    about: Mapping[str, Any]
    state: str
    changed: str
    patched: int


class _Diff(NamedTuple):
    """A diff, in parts of one kind each; how many ``hosts`` had it, and who in which run."""

    number: int
    files: Sequence[str]
    hosts: int
    runs: Mapping[tuple[str, str], Sequence[str]]
    parts: Sequence[tuple[str, str]]


def page(document: Mapping[str, Any]) -> str:
    """Make the page of what ``shim.fleet.report.document`` gives.

    Diffs that are alike are in it once. ShimError: Jinja2 is not installed.
    """
    urgency = list(document["verdicts"])
    hosts = [_host(each) for each in document["hosts"]]
    hosts.sort(key=lambda each: urgency.index(each.about["verdict"]))
    verdicts = Counter(each.about["verdict"] for each in hosts)
    text: str = _template().render(
        **{key: document[key] for key in ("made", "version", "inventory", "verdicts", "runs")},
        call=_CALL,
        cells=Counter((each.about["verdict"], each.state) for each in hosts),
        changes=_CHANGED,
        counts={
            "verdict": verdicts,
            "state": Counter(each.state for each in hosts),
            "changed": Counter(each.changed for each in hosts),
        },
        diffs=_diffs(each.about for each in hosts),
        hosts=hosts,
        left={each: verdicts[each] for each in _LEFT},
        left_view=urlencode([("verdict", each) for each in _LEFT]),
        states=list(dict.fromkeys([*_STATES, *(each.state for each in hosts)])),
        urgency=urgency,
    )
    return text


@cache
def _template() -> Any:
    try:
        from jinja2 import Environment, StrictUndefined
    except ImportError:
        raise ShimError(
            "jinja2 is not installed", hint="install.sh --with fleet, from the project's checkout"
        ) from None
    environment = Environment(
        autoescape=True,
        finalize=_shown,
        keep_trailing_newline=True,
        lstrip_blocks=True,
        trim_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {"code": _code, "digest": _digest, "moment": _moment}
    template = resources.files(__package__).joinpath("page.html.j2").read_text("utf-8")
    return environment.from_string(template)


def _host(about: Mapping[str, Any]) -> _Host:
    now = files_now(about["changes"])
    patched = list(now.values()).count("patched")
    changed = "changed" if patched else "rolled back" if now else "not changed"
    state = printable(about["calls"].get(_CALL, _UNTOLD))
    return _Host(about, state, changed, patched)


def _diffs(hosts: Iterable[Mapping[str, Any]]) -> dict[str, _Diff]:
    found: dict[str, dict[tuple[str, str], list[str]]] = {}
    for host in hosts:
        for each in host["changes"]:
            if each["diff"]:
                runs = found.setdefault(each["diff"], {})
                runs.setdefault((each["run"], each["kind"]), []).append(host["host"])
    diffs = {}
    for number, (diff, runs) in enumerate(found.items(), 1):
        kinds = list(_kinds(diff))
        files = [line[4:-1] for kind, line in kinds if kind == "file" and line.startswith("+++ ")]
        diffs[diff] = _Diff(number, files, len({*chain(*runs.values())}), runs, _parts(kinds))
    return diffs


def _parts(lines: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Put lines that follow each other and are of one kind together."""
    alike = groupby(lines, itemgetter(0))
    return [(kind, "".join(line for _, line in each)) for kind, each in alike]


def _kinds(diff: str) -> Iterator[tuple[str, str]]:
    """Tell what each line of a diff is.

    Lines are counted as the hunks say: a removed line that begins with ``--`` is no file's name.
    """
    old = new = 0
    for line in diff.removesuffix("\n").split("\n"):
        sign = line[:1]
        if sign == "\\":
            kind = "same"
        elif old > 0 or new > 0:
            kind = {"+": "added", "-": "removed"}.get(sign, "same")
            old -= kind != "added"
            new -= kind != "removed"
        elif hunk := _HUNK.match(line):
            kind = "hunk"
            old, new = (int(count or 1) for count in hunk.groups())
        else:
            kind = "file"
        yield kind, f"{line}\n"


def _shown(value: Any) -> Any:
    """Show what the template gives out; what is markup already has been made from such."""
    return printable(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def _code(text: str) -> Any:
    """Return text of many lines as markup; line feeds and tabs stay what they are."""
    from markupsafe import Markup, escape

    pieces = re.split(r"([\n\t])", text)
    return Markup("").join(each if each in "\n\t" else escape(printable(each)) for each in pieces)


def _digest(text: str) -> str:
    """Return what a Content-Security-Policy calls this style or script."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _moment(text: str) -> str:
    """Return a time of ours to the minute; any other text as it is."""
    told = _TIME.fullmatch(text)
    return f"{told[1]} {told[2]}" if told else text
