"""What ``seccomp-shim gaps --json`` says of calls, against those that were really made."""

from collections.abc import Mapping
from typing import Any

LAST_CALL = 600
_ENDS = {"EPERM": "errno 1", "ENOSYS": "errno 38", "killed": "signal 31"}
# The kernel itself says ENOSYS to them: futex to an operation that it does not have, memfd_secret
# where memory cannot be taken out of the kernel's own map.
_ENOSYS_TOO = {"futex", "memfd_secret"}


def table(output: str) -> dict[tuple[int, str], str]:
    """Read the sweep's lines: number, arguments, outcome."""
    rows = (line.split(" ", 2) for line in output.splitlines())
    return {(int(nr), arguments): outcome for nr, arguments, outcome in rows}


def disagreements(document: dict[str, Any], made: Mapping[tuple[int, str], str]) -> list[str]:
    """Return each number from 0 to LAST_CALL that ended otherwise than ``document`` tells."""
    by_release = document["kernel"]["source"].startswith("the catalogue")
    calls = {row["number"]: row for row in document["calls"]}
    wrong = []
    for number in range(LAST_CALL + 1):
        ends = {made[number, arguments] for arguments in ("0", "-1")}
        row = calls.get(number)
        if row is None:  # the kernel does not have it
            right = ends <= {_ENDS["EPERM"], _ENDS["ENOSYS"], _ENDS["killed"]}
        elif "allowed" not in row["answers"]:
            right = ends <= {_ENDS[word] for word in row["answers"]}
        else:
            # Of a kernel that hides its symbols nobody knows what its configuration left out.
            unsure = row["name"] in _ENOSYS_TOO or by_release
            right = _ENDS["ENOSYS"] not in ends or unsure
        if not right:
            told = " or ".join(row["answers"]) if row else "not there"
            wrong.append(f"{number} {row['name'] if row else ''}: told {told}, made {ends}")
    return wrong
