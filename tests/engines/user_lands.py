"""Programs of the virtual machines' user lands: the host's own, and newer ones to try beside it."""

from support import need
from vm import stacks

_STACKS = {stack.name: stack for stack in stacks.STACKS}
NAMES = tuple(_STACKS)


def program(user_land: str, path: str) -> str:
    """Return where that user land has ``path``; go on only if its tree has been made."""
    root = stacks.root_if_there(_STACKS[user_land])
    need.kernel(root is not None, f"{user_land} is not made, see tests/vm/run --build")
    return need.program(f"{root}".rstrip("/") + path)
