"""The OCI hooks, and what they have in common: the admin's arguments."""

from shim.errors import ShimError


def parse(argv: "list[str]", known: "tuple[str, ...]", usage: str) -> "dict[str, str]":
    """Parse the admin's arguments by hand: argparse costs more than all else here together.

    ShimError: one that is not among ``known``, or a value that cannot be meant.
    """
    given = {}
    rest = list(argv[1:])
    while rest:
        option = rest.pop(0)
        value = rest.pop(0) if rest else ""
        if option not in known or not _fits(option, value):
            raise ShimError(f"cannot use {option} {value}".rstrip(), hint=usage)
        given[option] = value
    return given


def _fits(option: str, value: str) -> bool:
    if option == "--test-syscall":
        from shim.abi import TEST_SYSCALLS

        return value.isdigit() and int(value) in TEST_SYSCALLS
    return value.startswith("/") if option in ("--config", "--rendezvous") else value != ""
