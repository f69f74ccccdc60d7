"""Journals: one file a run, one JSON document a line, each on the disk before the next step.

A file's name is the run's id, numbered, for clocks are set back. What a kill has cut short is read
over: the line that it was writing tells nothing.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator
from typing import Any

from shim import __version__
from shim.atomic import sync_directory
from shim.log import timestamp


def start(directory: str, head: dict[str, Any]) -> tuple[str, str, int]:
    """Begin a journal in ``directory`` with the line ``head``; return id, path and descriptor.

    Of two that begin at once each gets an id of its own.
    """
    while True:
        now = timestamp()
        last = max(map(number, ids(directory)), default=0)
        ident = f"{last + 1:05}-{now[:19].replace('-', '').replace(':', '')}"
        path = os.path.join(directory, f"{ident}.jsonl")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        try:
            fd = os.open(path, flags, 0o600)
        except FileExistsError:
            continue
        try:
            append(fd, path, [{"run": ident, "time": now, **head, "version": __version__}])
            sync_directory(directory)
        except BaseException:
            os.close(fd)
            raise
        return ident, path, fd


def reopen(path: str) -> int:
    """Return a descriptor to add to a journal that somebody else may have been killed at."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    try:
        # A line that was cut short must not swallow the next one.
        os.write(fd, b"\n")
    except BaseException:
        os.close(fd)
        raise
    return fd


def append(fd: int, path: str, lines: Iterable[dict[str, Any]]) -> None:
    """Add lines, and put them on the disk. OSError, with the path: they are not there."""
    data = "".join(f"{json.dumps(line)}\n" for line in lines).encode()
    try:
        while data:
            data = data[os.write(fd, data) :]
        os.fdatasync(fd)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None


def documents(path: str) -> Iterator[dict[str, Any]]:
    """Yield the lines of a journal."""
    with open(path, "rb") as file:
        for line in file:
            try:
                document = json.loads(line)
            except ValueError:
                continue  # cut short when the run was killed
            if isinstance(document, dict):
                yield document


def ids(directory: str) -> list[str]:
    """Return the ids of all runs, the oldest first; what others have put there is none."""
    names = (each for each in os.listdir(directory) if re.fullmatch(r"\d+-\w+\.jsonl", each))
    return sorted((name.removesuffix(".jsonl") for name in names), key=number)


def number(ident: str) -> int:
    """Return the number that an id begins with."""
    return int(ident.partition("-")[0])


def named(ident: str, asked: str) -> bool:
    """Tell whether a user who says ``asked`` means run ``ident``: its id, or its number."""
    return asked == ident or (asked.isdecimal() and int(asked) == number(ident))
