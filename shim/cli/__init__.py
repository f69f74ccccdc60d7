"""The verbs: parse, one call, print. One file a verb; it imports what it needs when it runs."""

import os
import sys

from shim import __version__
from shim.errors import ShimError, printable

VERBS = (
    "probe", "find", "patch", "rollback", "fleet", "verify", "exec", "docker", "install",
    "uninstall", "status", "log", "metrics", "config", "demo", "scan", "guard", "denials",
    "gaps", "explain", "prove", "doctor",
)  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Run one verb and give its exit status: 0 done, 1 findings, 2 error."""
    words = sys.argv[1:] if argv is None else argv
    if words[:1] == ["docker"]:  # with an alias most commands only pass through: nothing is loaded
        from shim.cli import docker

        return docker.main(words[1:])
    import importlib

    from shim.cli.parser import Parser

    parser = Parser(
        prog="seccomp-shim",
        description="Keep containers alive when the kernel learns a system call that their "
        "seccomp profile has never heard of.",
    )
    parser.add_argument("--version", action="version", version=f"seccomp-shim {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    # Of a verb that is named the others' parsers need not be made.
    for name in words[:1] if words[0:1] and words[0] in VERBS else VERBS:
        module = importlib.import_module(f"shim.cli.{name}")
        module.add_parser(verbs)
    args = parser.parse_args(words)
    try:
        return int(args.run(args))
    except ShimError as error:
        print(f"seccomp-shim {args.verb}: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader (head, less) went away; keep the interpreter from failing on flush at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 2
    except OSError as error:
        subject = f"{error.filename}: " if error.filename else ""
        print(
            f"seccomp-shim {args.verb}: {printable(f'{subject}{error.strerror or error}')}",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        return 130
    except Exception:
        # A defect of ours: the interpreter's own status for it is 1, which means findings.
        import traceback

        traceback.print_exc()
        return 2
