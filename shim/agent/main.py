"""One question about this host on standard input, the answer on standard output: JSON both.

Who manages many hosts starts this on each, with the package in a directory and whatever Python is
there: ``python3 -ISc 'import sys; sys.path[:0] = sys.argv[1:]; from shim.agent.main import main;
main()' DIRECTORY LIBRARIES``. A question is ``{"do": NAME, ...}`` with the keywords of the
function that stands for NAME in ``QUESTIONS``; in the answer, ``error`` is one line about what kept
it from being answered. There is never a traceback, and the exit status is 0.
"""

import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

from shim.errors import one_line


def _facts(**request: Any) -> Any:
    from shim.agent.facts import gather

    return gather(**request)


def _patched(**request: Any) -> Any:
    from shim.agent.ensure import patched

    return patched(**request)


def _rolled_back(**request: Any) -> Any:
    from shim.agent.ensure import rolled_back

    return rolled_back(**request)


def _registered(**request: Any) -> Any:
    from shim.agent.register import registered

    return registered(**request)


def _installed() -> Any:
    from shim.agent import facts
    from shim.engines import service
    from shim.engines.registration import this_host

    return {"installed": facts.installed(), "engines": service.installed(this_host())}


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


def main() -> None:
    """Read a question, write the answer. What else is printed meanwhile goes to standard error."""
    out = os.dup(1)
    os.dup2(2, 1)
    given = json.load(sys.stdin)
    with open(out, "w", encoding="utf-8") as file:
        json.dump(answer(given), file)
