"""The engines of the verbs install, uninstall and status, each with its own options."""

import argparse
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from shim.cli.parser import Parser
from shim.engines.registration import ENGINES
from shim.errors import ShimError

if TYPE_CHECKING:
    from shim.engines.registration import Host


class _Parser(Parser):
    """A parser that asks for an engine's options only when it is used: other verbs need no module.

    ``fill`` adds them.
    """

    fill: Callable[[argparse.ArgumentParser], None] | None = None

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse as always, with the engine's options."""
        if self.fill:
            fill, self.fill = self.fill, None
            fill(self)
        return super().parse_known_args(args, namespace)


def refuse_missing(args: argparse.Namespace, host: "Host") -> None:
    """Refuse a file of the engine's that was named and is not there. ShimError: it is not.

    One that ``install`` is to make needs its directory; one that we have changed may be gone.
    """
    from shim.engines.registration.changes import recorded

    named = getattr(args, "config", None) or getattr(args, "daemon_json", None)
    needed = os.path.dirname(named or "") if args.verb == "install" else named
    if needed and named not in recorded(args.engine, host.state).files:
        try:
            os.stat(needed)
        except (FileNotFoundError, NotADirectoryError):
            raise ShimError("is not there", subject=needed) from None


def add_verb(
    verbs: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    run: Callable[[argparse.Namespace], int],
    common: Callable[[argparse.ArgumentParser], None],
    *,
    description: str,
    required: bool = True,
    help: str,  # noqa: A002 - argparse has it
    epilog: str,
) -> argparse.ArgumentParser:
    """Add a verb with one parser an engine, to which ``common`` adds what all of them take.

    What only an engine has is added by its function ``NAME_options``. ``required``: one is named.
    """
    raw = argparse.RawDescriptionHelpFormatter
    parser = verbs.add_parser(
        name, help=help, description=description, epilog=epilog, formatter_class=raw
    )
    parser.set_defaults(run=run)
    engines = parser.add_subparsers(
        dest="engine", metavar="ENGINE", required=required, parser_class=_Parser
    )
    for engine in ENGINES:
        each = engines.add_parser(
            engine,
            usage="%(prog)s [OPTION ...]",  # argparse breaks no group of options: it would not fit
            help=f"{name} {engine}",
            description=description,
            formatter_class=raw,
        )
        common(each)
        each.fill = _filler(engine, f"{name}_options")
    return parser


def _filler(name: str, kind: str) -> Callable[[argparse.ArgumentParser], None]:
    def fill(parser: argparse.ArgumentParser) -> None:
        from shim.engines.registration import load

        getattr(load(name), kind)(parser)

    return fill
