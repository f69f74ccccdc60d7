"""Read the rules of the flat OCI ``linux.seccomp``: actions as return values, conditions."""

from typing import Any

from shim import abi
from shim.errors import ShimError
from shim.profile.evaluate import ACTIONS, action_of, sequence, table
from shim.profile.validate import OPERATORS

# One condition as libseccomp has it: argument, operator, datum, second datum (for a mask).
Condition = tuple[int, str, int, int]


def return_value(where: dict[str, Any], key: str, errno_key: str, pointer: str) -> int:
    """Return what a filter returns for an action; ERRNO and TRACE carry EPERM if nothing else."""
    value = ACTIONS[action_of(where, key, pointer)]
    if value not in (abi.SECCOMP_RET_ERRNO, abi.SECCOMP_RET_TRACE):
        return value
    data = where.get(errno_key)
    return value | _number(1 if data is None else data, 32, f"{pointer}/{errno_key}") & 0xFFFF


def alternatives(rule: dict[str, Any], pointer: str) -> list[tuple[Condition, ...]]:
    """Return the conditions of a rule: one alternative must hold in full; none at all is one too.

    Where two conditions look at the same argument, runc takes each one for a rule of its own.
    """
    conditions: list[Condition] = []
    for place, arg in enumerate(sequence(rule, "args", pointer)):
        here = f"{pointer}/args/{place}"
        entry = table(arg, here)
        index = _number(entry.get("index", 0), 32, f"{here}/index")
        operator = entry.get("op")
        if index > 5:
            raise ShimError("a system call has arguments 0 to 5", subject=f"{here}/index")
        if operator not in OPERATORS:
            raise ShimError(f"unknown operator {operator}", subject=f"{here}/op")
        value = _number(entry.get("value", 0), 64, f"{here}/value")
        other = _number(entry.get("valueTwo", 0), 64, f"{here}/valueTwo")
        conditions.append((index, str(operator), value, other))
    if len({condition[0] for condition in conditions}) < len(conditions):
        return [(condition,) for condition in conditions]
    return [tuple(conditions)]


def _number(value: object, bits: int, pointer: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << bits:
        raise ShimError(f"must be a whole number of {bits} bits", subject=pointer)
    return value
