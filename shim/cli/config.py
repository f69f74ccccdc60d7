"""``seccomp-shim config``: check the settings and compile them for the start path."""

import argparse
import os
import sys

from shim import config, configfile, logread
from shim.errors import ShimError


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "config",
        help="check the settings file and show what is in force",
        description="Check the settings file, and that the log it names can be written, and show "
        f"the settings in force. {config.PATH} is compiled for the container start path as well, "
        "as the first container after an edit does by itself; this verb tells you beforehand what "
        "is wrong.",
        epilog="exit statuses: 0 the settings are in order, or there is no file and the defaults "
        "are in force; 2 error, or the log cannot be written.",
    )
    parser.add_argument(
        "--file", metavar="FILE", help=f"check this file and write nothing (default: {config.PATH})"
    )
    parser.add_argument(
        "--compile",
        action="store_true",
        help="compile FILE, too: for one that hooks or a wrapper name with their own --config",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Check, compile, show."""
    path = args.file or config.PATH
    try:
        settings = configfile.check(path)
    except FileNotFoundError:
        if args.file or args.compile:
            raise ShimError("no such settings file", subject=path) from None
        print(f"{path} is not there; the defaults are in force")
        settings = config.DEFAULTS
    else:
        _compile(path, asked=args.compile)
    runtimes = ", ".join(f"{name}: {path}" for name, path in settings["runtimes"].items())
    limit = configfile.shown_limit(settings["log_max"])
    shown = {**settings, "log_max": limit, "runtimes": runtimes or "from PATH"}
    for key, value in shown.items():
        print(f"{key}: {value or 'none'}")
    if wrong := logread.trouble(settings):
        sys.stdout.flush()
        raise ShimError(wrong)
    return 0


def _compile(path: str, *, asked: bool) -> None:
    """Compile the file that is in force, or that was ``asked`` for."""
    if asked:
        configfile.keep(path)
    elif path == config.PATH and os.geteuid() == 0:
        try:
            configfile.keep(path)
        except (OSError, ShimError) as error:
            print(f"not compiled, which each start has to do then: {error}", file=sys.stderr)
