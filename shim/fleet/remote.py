"""One question about this host on standard input, the answer on standard output: JSON both.

Who manages many hosts starts this on each, with the package in a folder and whatever Python is
there: ``python3 -ISc 'import sys; sys.path[:0] = sys.argv[1:]; from shim.fleet import remote;
remote.main()' FOLDER LIBRARIES``. A question is ``{"do": NAME, ...}`` with the keywords of the
function that stands for NAME in ``QUESTIONS``; in the answer, ``error`` is one line about what kept
it from being answered. There is never a traceback, and the exit code is 0.
"""

import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

from shim.errors import ShimError, printable


def _facts(**request: Any) -> Any:
    from shim.fleet.facts import gather

    return gather(**request)


def _patched(**request: Any) -> Any:
    from shim.fleet.wanted import patched

    return patched(**request)


def _rolled_back(**request: Any) -> Any:
    from shim.fleet.wanted import rolled_back

    return rolled_back(**request)


def _registered(**request: Any) -> Any:
    from shim.fleet.register import registered

    return registered(**request)


def _installed() -> Any:
    from shim.fleet import facts, register

    return {"installed": facts.installed(), "engines": register.recorded()}


QUESTIONS: Mapping[str, Callable[..., Any]] = {
    "facts": _facts,
    "patched": _patched,
    "rolled_back": _rolled_back,
    "registered": _registered,
    "installed": _installed,
}


def answer(request: dict[str, Any]) -> Any:
    """Answer a question."""
    try:
        words = dict(request)
        return QUESTIONS[words.pop("do")](**words)
    except Exception as error:
        return {"error": one_line(error)}


def one_line(error: Exception) -> str:
    """Say in one line what went wrong."""
    if isinstance(error, ShimError):
        line = str(error)
    elif isinstance(error, OSError):
        line = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    else:
        # A defect of ours; on a thousand hosts one line of it is of more use than its traceback.
        line = f"{type(error).__name__}: {error} ({_place(error)})"
    return printable(line)


def main() -> None:
    """Read a question, write the answer. What else is printed meanwhile goes to standard error."""
    out = os.dup(1)
    os.dup2(2, 1)
    given = json.load(sys.stdin)
    with open(out, "w", encoding="utf-8") as file:
        json.dump(answer(given), file)


def _place(error: BaseException) -> str:
    """Name the innermost place in the source that an error comes from."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return "unknown place"
    return f"{os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}"
