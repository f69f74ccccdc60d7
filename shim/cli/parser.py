"""The command line of every verb: a mistake is one line that says where to read more."""

import argparse
from typing import Any, NoReturn

from shim.errors import printable


class Parser(argparse.ArgumentParser):
    """A parser that does not print its whole usage for a mistake, and names its own verb."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong in one line; exit status 2."""
        self.exit(2, f"{self.prog}: {printable(message)} (try '{self.prog} --help')\n")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse as always; a word too many is this verb's mistake, not that of the whole."""
        known, extra = super().parse_known_args(args, namespace)
        if extra:
            self.error(f"unrecognized arguments: {' '.join(extra)}")
        return known, extra
