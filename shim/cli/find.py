"""The verb find: list the profiles of this host."""

import argparse
import errno
import json
import os
import sys
from typing import TYPE_CHECKING

from shim.errors import ShimError, counted, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shim.discovery.find import FoundProfile, Survey
    from shim.discovery.root import Root
    from shim.risk.units import Live

_CLOSED = os.strerror(errno.EACCES)
DESCRIPTION = """\
List every seccomp profile that is in use or lies where engines look: Docker,
Podman, CRI-O and containerd by their settings, the kubelet's directory,
Kubernetes manifests, compose files, and systemd's units, which have filters of
their own: those are judged by what their processes really have (root). Nothing
is changed."""

EPILOG = """\
states:
  allows             the kernel's own calls (uretprobe, uprobe) pass
  denies by default  the profile has never heard of them: patch helps (a default
                     of SCMP_ACT_TRACE denies, too, where nobody traces)
  no effect          it allows them by name, and the libseccomp of every runtime
                     here drops it: the wrapper helps (install ENGINE --default)
  explicit deny      it denies them by name, somebody wanted that
  supervised         a listener decides, or a tracer that is named for them
  filters nothing    it has neither rules nor a default action
  invalid            no engine could use it; WHY tells what is wrong
  denies             a unit's processes are refused one of the calls, or killed
  not judged         a unit of which no process runs, or can be read

A name has an effect where the runtime's libseccomp knows it: 2.5.6 for
uretprobe, 2.6.1 for uprobe. "effect" in the JSON says under which of the
runtimes here it has one: all, some, none, or unknown (there is no runtime, or
it does not tell its libseccomp; also with --root).

Compose files are looked for in /etc, /opt, /srv and /root, four directories
deep, and with --homes in the home directories of users. Links are followed, but
not out of --root, and not where somebody else could change them. What could not
be read is told on standard error.

examples:
  seccomp-shim find
  seccomp-shim find --extra-path /srv/deploy --json |
    jq 'select(.state == "denies by default")'
  seccomp-shim find --root /mnt/image

A PATH means that and nothing else, --extra-path that besides all others. With
--root both are paths inside of it.

exit statuses: 0 done, 1 some files are invalid or could not be read (each is
named; several that are closed to you are counted), 2 error: a PATH is no
profile, for instance."""


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "find",
        help="list the profiles of this host: where, used by whom, what they say",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "paths", nargs="*", metavar="PATH", help="only this file, or what is in this directory"
    )
    extra_path(parser)
    parser.add_argument(
        "--root", default="/", metavar="DIR", help="look at the host whose root directory is DIR"
    )
    parser.add_argument(
        "--homes", action="store_true", help="look into the home directories of users, too"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document a profile")
    parser.set_defaults(run=run)


def extra_path(parser: argparse.ArgumentParser) -> None:
    """Add the option for what lies where engines do not look."""
    parser.add_argument(
        "--extra-path",
        action="append",
        default=[],
        metavar="PATH",
        help="this file or directory, too; may be given again",
    )


def run(args: argparse.Namespace) -> int:
    """Print what is found."""
    from shim.catalog import kernel_injected
    from shim.cli.output import table
    from shim.discovery.find import UNIT, document, survey
    from shim.discovery.profile_state import PatchOptions
    from shim.host.effect import effects_here

    calls = list(kernel_injected().values())
    effects = effects_here(calls) if args.root == "/" else {}
    options = PatchOptions(calls, {}, "always", effects=effects)
    extra = args.extra_path
    found = survey(root(args.root), args.paths or None, options, extra=extra, homes=args.homes)
    units, why_text = _units(found, here=args.root == "/")
    judged = [
        _judged(each, units.get(each.file), why_text) if each.format == UNIT else each
        for each in found.found
    ]
    if args.json:
        for each in judged:
            live = units.get(each.file) if each.format == UNIT else None
            by = {
                "judged_by": "processes" if live else "text",
                "units": live.documents() if live else [],
            }
            print(json.dumps({**document(each, effects), **by}))
    elif judged:
        rows = [row(each) for each in judged]
        print(table(("PROFILE", "FORMAT", "STATE", "USED BY", "WHY"), rows), end="")
    else:
        print("no profile was found")
    return problems(found, [*args.paths, *extra], "find")


def _units(found: "Survey", *, here: bool) -> "tuple[dict[str, Live], str]":
    """Return what live processes answer of the units in files, and why of the rest none does."""
    from shim.discovery.find import UNIT

    files = {each.file for each in found.found if each.format == UNIT}
    if not files:
        return {}, ""
    if not here:
        return {}, "a process of another host cannot be asked"
    from shim.risk.units import live

    try:
        return live(files), "no process of it runs"
    except ShimError as error:
        return {}, error.message
    except OSError as error:
        return {}, f"filters cannot be read: {error.strerror}"


def _judged(found: "FoundProfile", live: "Live | None", why_text: str) -> "FoundProfile":
    """Return a unit as its processes have it, or else as its text has it, and say which."""
    if live is None:
        return found._replace(reason=f"{found.reason}, by its text ({why_text})")
    return found._replace(state=live.state, reason=live.why())


def problems(survey: "Survey", paths: "Sequence[str]", verb: str) -> int:
    """Say what could not be looked at; 2 if the user has named such a file, else 1, or 0."""
    closed = [path for path, why in survey.notes if why == _CLOSED]
    lines = [f"{path}: {why}" for path, why in survey.notes if why != _CLOSED or len(closed) == 1]
    if len(closed) > 1:
        lines.append(f"{len(closed)} paths could not be read ({_CLOSED}), {closed[0]} for one")
    if survey.bad:
        others = any(each.file not in survey.bad for each in survey.found)
        line = f"{counted(len(survey.bad), 'file')} invalid or not to be read"
        lines.append(f"{line}, the others are listed" if others else line)
    for line in lines:
        print(f"seccomp-shim {verb}: {printable(line)}", file=sys.stderr)
    if not survey.bad:
        return 0
    return 2 if any(each.state == "invalid" and each.file in paths for each in survey.found) else 1


def root(directory: str) -> "Root":
    """Open the directory that is the root. ShimError: it is no directory."""
    from shim.discovery.root import Root

    if not os.path.isdir(directory):
        raise ShimError("is no directory", subject=directory)
    return Root(directory)


def row(found: "FoundProfile") -> tuple[str, ...]:
    """Return the cells of the table."""
    from shim.host.libseccomp import about_unknown

    name = f"{found.file} ({found.profile})" if found.profile else found.file
    users = ", ".join(_user(who, where.removeprefix(found.file)) for who, where in found.uses)
    why = "; ".join(filter(None, (found.reason, about_unknown(found.unknown))))
    return name, found.format or "-", found.state, users or "-", why


def _user(who: str, where: str) -> str:
    """Return who uses a profile, and where that is written: nowhere if it is built in."""
    return f"{who}, built in" if where == "(built in)" else f"{who} ({where})"
