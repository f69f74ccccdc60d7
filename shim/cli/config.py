"""``seccomp-shim config``: check the settings and compile them for the start path."""

import argparse

from shim import config


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "config",
        help="check the settings file and show what is in force",
        description="Check the settings file, compile it for the container start path, and show "
        "the settings in force. The first container after an edit does the same by itself; this "
        "verb tells you beforehand what is wrong.",
    )
    parser.add_argument("--file", default=config.PATH, help="the settings (default: %(default)s)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Check, compile, show."""
    try:
        settings = config.compile_file(args.file)
    except FileNotFoundError:
        print(f"{args.file} is not there; the defaults are in force")
        settings = config.DEFAULTS
    runtimes = ", ".join(f"{name}: {path}" for name, path in settings["runtimes"].items())
    for key, value in {**settings, "runtimes": runtimes or "from PATH"}.items():
        print(f"{key}: {value or 'none'}")
    return 0
