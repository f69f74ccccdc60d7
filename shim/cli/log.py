"""The verb log: what the audit log says, one line a container, and what it comes to."""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from shim import log, logread
from shim.cli import duration
from shim.cli.output import table
from shim.errors import ShimError, counted, printable

DESCRIPTION = """\
Show what the audit log says: one line for each container, the latest last, and
what all of it comes to. Rotated and compressed logs are read as well. Names and
images are those that engines still know."""

EPILOG = """\
examples:
  seccomp-shim log --since 1h
  seccomp-shim log --container web --event
  seccomp-shim log --errors
  seccomp-shim log --ack --container web
  seccomp-shim log --summary

exit statuses: 0 nothing went wrong, or it was acknowledged, 1 something did,
2 error."""

_TOLD = ("mechanism", "process", "syscall", "before", "after", "verified", "repeats", "reason")
_POLL_SECONDS = 0.5
_ID, _SHORT = 64, 12
_LEAST = 4  # letters of an id that are enough
_NAMED, _SHOWN = 1000, 20


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "log",
        help="show what was adjusted, by container, and what went wrong",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--since",
        metavar="TIME",
        default="1d",
        help="how far back: 90s, 30m, 1h, 2d, 1w, or a time such as 2026-11-26T10:00 (UTC); "
        "default: 1d",
    )
    parser.add_argument("--container", metavar="NAME|ID", help="of one container only")
    parser.add_argument(
        "--event",
        nargs="?",
        const="",
        metavar="EVENT",
        help="a line for each event, or for those of one kind only",
    )
    parser.add_argument(
        "--errors", action="store_true", help="what went wrong only, event by event"
    )
    parser.add_argument("--follow", action="store_true", help="go on with what comes, until Ctrl-C")
    parser.add_argument(
        "--json", action="store_true", help="the events as they are, or the summary as a document"
    )
    parser.add_argument("--summary", action="store_true", help="only what it comes to")
    parser.add_argument(
        "--ack",
        action="store_true",
        help="acknowledge what went wrong: it was dealt with, and status does not tell of it any "
        "more",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Read, and print what was asked for."""
    if args.follow and (args.summary or args.ack):
        raise ShimError("--follow goes with neither --summary nor --ack")
    path = log.path(make=False)
    if os.geteuid() == 0:
        _complete(path)
    if not any(map(os.path.exists, logread.log_files(path))):
        raise ShimError("there is no log yet", subject=path)
    look = _Query(path, _since(args.since), args.container)
    if args.ack:
        return _acknowledge(look, of_one=bool(args.container))
    if args.follow or args.event is not None or args.errors or (args.json and not args.summary):
        return _each(look, args)
    from shim.logsummary import summarize

    whole, containers = summarize(look.events(), look.acknowledged)
    if args.json:
        print(json.dumps({"log": path, "since": look.since, **whole.document()}, indent=2))
    else:
        if not args.summary and containers:
            sys.stdout.write(_containers(containers, look))
        print(f"since {look.since.replace('T', ' ')}: {whole.line()}")
    return 1 if whole.wrong else 0


class _Query:
    """The part of the log that is looked at, and what is known of the containers in it.

    It is read twice: an error is acknowledged behind it, and a log is longer than memory is wide.
    """

    def __init__(self, path: str, since: str, container: str | None) -> None:
        self.path = path
        self.since = since
        self.container = container
        self.acknowledged: list[dict[str, Any]] = []
        self._known: dict[str, tuple[str, str]] = {}
        idents: dict[str, None] = {}
        for event in self._all():
            idents[str(event.get("container", ""))] = None
            if event.get("event") == "acknowledged":
                self.acknowledged.append(event)
        self._learn(list(idents)[-_NAMED:])
        self._idents = set(idents)
        self._meant = set(self._of_name(idents)) if container else set()

    def events(self) -> Iterator[dict[str, Any]]:
        """Return the events that are asked for, the oldest first."""
        return (event for event in self._all() if self.is_of(event))

    def is_of(self, event: dict[str, Any]) -> bool:
        """Tell whether an event is of the container that is asked for, if one is."""
        ident = str(event.get("container", ""))
        if not self.container:
            return True
        if ident in self._idents:
            return ident in self._meant
        return bool(self._of_name([ident]))  # of one that began meanwhile

    def _of_name(self, idents: Iterable[str]) -> list[str]:
        """Return which of these is asked for. ShimError: several are.

        An id goes before the beginning of one, and both before a name, which others give.
        """
        wanted = self.container or ""
        idents = [ident for ident in idents if ident]
        whole = [ident for ident in idents if ident == wanted]
        begun = [ident for ident in idents if len(wanted) >= _LEAST and ident.startswith(wanted)]
        meant = whole or begun or [ident for ident in idents if self.name(ident) == wanted]
        if len(meant) > 1:
            each = ", ".join(sorted(meant)[:_SHOWN])
            raise ShimError(
                f"several containers are meant: {each}", subject=wanted, hint="give one"
            )
        return meant

    def wrong(self) -> list[dict[str, Any]]:
        """Return what went wrong and is not acknowledged."""
        return [each for each in self.events() if self.is_wrong(each)]

    def is_wrong(self, event: dict[str, Any]) -> bool:
        """Tell whether something went wrong that nobody has acknowledged."""
        return logread.is_wrong(event) and not logread.covered(event, self.acknowledged)

    def name(self, ident: str) -> str:
        """Return what an engine calls a container, or its id, as short as engines show it."""
        if not ident:
            return "-"
        if ident not in self._known:
            self._learn([ident])
        short = ident[:_SHORT] if len(ident) == _ID and ident.isalnum() else ident
        return self._known[ident][0] or short

    def image(self, ident: str) -> str:
        """Return the image of a container, empty where no engine tells it."""
        return self._known.get(ident, ("", ""))[1]

    def _all(self) -> Iterator[dict[str, Any]]:
        for line in logread.since(self.path, self.since):
            if event := logread.parsed(line):
                yield event

    def _learn(self, idents: list[str]) -> None:
        from shim.risk.container_names import EngineRecords
        from shim.risk.groups import Place

        places = {
            ident: [Place("container", engine, ident) for engine in ("", "podman")]
            for ident in idents
            if ident
        }
        records = EngineRecords([each for both in places.values() for each in both])
        for ident, both in places.items():
            known = [records.known(each) for each in both]
            names = [each.name for each in known if each.name != ident[:_SHORT]]
            images = [each.image for each in known if each.image]
            self._known[ident] = (names[0] if names else "", images[0] if images else "")


def _containers(containers: dict[str, Any], look: _Query) -> str:
    rows = [
        (
            each.last[:16].replace("T", " "),
            look.name(ident),
            look.image(ident) or "-",
            each.short(),
        )
        for ident, each in containers.items()
    ]
    return table(("LAST", "CONTAINER", "IMAGE", "WHAT"), rows)


def _since(text: str) -> str:
    """Return the time that is meant, as lines of the log have theirs. ShimError: none is."""
    ago = duration.seconds(text)
    try:
        if ago is not None:
            then = datetime.now(UTC) - timedelta(seconds=ago)
        else:
            then = datetime.fromisoformat(text)
            then = then.astimezone(UTC) if then.tzinfo else then.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        hint = "such as 30m, 1h, 2d, or 2026-11-26T10:00"
        raise ShimError(f"--since {text}: no time", hint=hint) from None
    return then.strftime("%Y-%m-%dT%H:%M:%S")


def _complete(path: str) -> None:
    """Put into the log what waits beside it; what cannot be is there the next time."""
    from shim import config
    from shim.start import repeats

    try:
        log.settle(path)
        repeats.settle(path, config.load()[0]["log_max"])
    except OSError:
        return


def _each(look: _Query, args: argparse.Namespace) -> int:
    """Print event by event."""
    following = _following(look.path)
    if args.follow:
        next(following)  # from here on: what is written meanwhile is not lost
    began, both = _since("1s"), []
    wrong = 0
    for event in look.events():
        wrong += _print(event, args, look)
        if str(event.get("time", "")) >= began:
            both.append(event)
    if args.follow:
        sys.stdout.flush()
        for line in following:
            event = logread.parsed(line)
            if event and event not in both and look.is_of(event):
                wrong += _print(event, args, look)
                sys.stdout.flush()
    return 1 if wrong else 0


def _print(event: dict[str, Any], args: argparse.Namespace, look: _Query) -> bool:
    """Print an event if it is asked for; tell whether something went wrong in it."""
    wrong = look.is_wrong(event)
    if (args.errors and not wrong) or (args.event and event.get("event") != args.event):
        return False
    print(json.dumps(event) if args.json else _line(event, look))
    return wrong


def _line(event: dict[str, Any], look: _Query) -> str:
    """Return an event as people read it, the most telling first."""
    when = str(event.get("time", ""))[:19].replace("T", " ")
    container = str(event.get("container", ""))
    parts = [f"{event.get('event', '')}:"] if any(event.get(key) for key in _TOLD) else []
    parts = parts or [str(event.get("event", ""))]
    verified = {True: "verified", False: "NOT as it should be", None: "not verified"}
    for key in _TOLD:
        value = event.get(key)
        if key == "verified" and key in event:
            parts.append(verified.get(value, "") + ",")
        elif key == "repeats" and value:
            parts.append(f"{value} like the one before,")
        elif value and key not in ("before", "after"):
            parts.append(f"{value},")
        elif value:
            parts.append(f"{'from' if key == 'before' else 'to'} {value},")
    text = " ".join([when, *([look.name(container)] if container else []), *parts]).rstrip(",")
    return printable(text)


def _acknowledge(look: _Query, *, of_one: bool) -> int:
    """Write that all of this was dealt with that went wrong, and show what it was."""
    wrong = look.wrong()
    if not wrong:
        print("nothing went wrong that is not acknowledged")
        return 0
    for event in wrong[-_SHOWN:]:
        print(_line(event, look))
    until = max(str(each.get("time", "")) for each in wrong)
    for container in sorted({str(each.get("container", "")) for each in wrong} if of_one else [""]):
        fields = {"container": container} if container else {}
        log.record("acknowledged", log=look.path, until=until, **fields)
    print(f"{counted(len(wrong), 'error')} acknowledged, up to {until}")
    return 0


def _following(path: str) -> Iterator[bytes]:
    """Return nothing, and then the lines that are written from now on, also to the next log."""
    file = _opened(path)
    if file:
        file.seek(0, os.SEEK_END)
    rest = b""
    yield rest
    while True:
        while file and (part := file.read(1 << 16)):
            *whole, rest = (rest + part).split(b"\n")
            yield from whole
        if not file or _is_rotated(path, file.fileno()):
            # What came to the old one meanwhile has been read: it is renamed before the new one is.
            if file:
                *whole, rest = (rest + file.read()).split(b"\n")
                yield from whole
                file.close()
            file = _opened(path)
            if file:
                continue
        time.sleep(_POLL_SECONDS)


def _opened(path: str) -> Any:
    from shim import files

    try:
        return open(files.open_regular(path), "rb")
    except FileNotFoundError:
        return None


def _is_rotated(path: str, fd: int) -> bool:
    try:
        return not os.path.samestat(os.stat(path), os.fstat(fd))
    except FileNotFoundError:
        return False
