"""The options that say whose filter a verb is asked about: a profile, a process, a container."""

import argparse
import os
from typing import TYPE_CHECKING

from shim.cli.container_options import add_container_options, container, key_of, machine
from shim.errors import ShimError, counted

if TYPE_CHECKING:
    from shim.profile.document import Document
    from shim.profile.model import Loader
    from shim.risk.filter_source import Subject

_KINDS = ("docker",)


def add_subject_options(parser: argparse.ArgumentParser) -> None:
    """Add what names a filter, and what describes the container that a profile is for."""
    parser.add_argument("--profile", metavar="FILE", help="this profile, as the runtime loads it")
    parser.add_argument(
        "--pid", type=int, metavar="N", help="the filters that process N has (root)"
    )
    parser.add_argument(
        "--container",
        metavar="NAME",
        help="the filters that a running container has, of docker or podman, or by its id (root)",
    )
    parser.add_argument(
        "--unit", metavar="NAME", help="the filters that a running systemd unit has (root)"
    )
    parser.add_argument(
        "--image-profile",
        metavar="E:V",
        help="the profile built into this engine and version, such as docker:20.10.7",
    )
    parser.add_argument(
        "--runtime",
        metavar="runc|crun|PATH",
        default="",
        help="the runtime that loads the profile (default: runc or crun, the first that is here)",
    )
    parser.add_argument(
        "--for-libseccomp",
        metavar="VERSION",
        default="",
        help="as a runtime with this release (2.5.4) loads it",
    )
    parser.add_argument(
        "--arch",
        metavar="ABI",
        default="",
        help="ask about this ABI of the machine instead: i386 or x32, of aarch64 arm",
    )
    add_container_options(parser)


def subject(args: argparse.Namespace) -> "Subject":
    """Return the filter that the options name; with none of them, Docker's default profile."""
    from shim.risk.foreign import of_abi

    found = _subject(args)
    return of_abi(found, args.arch) if args.arch else found


def _subject(args: argparse.Namespace) -> "Subject":
    from shim.risk.filter_source import of_profile

    living = (args.pid, args.container, args.unit)
    if sum(each is not None for each in (args.profile, *living, args.image_profile)) > 1:
        raise ShimError(
            "--profile, --pid, --container, --unit and --image-profile exclude each other"
        )
    if any(each is not None for each in living):
        return _living(args)
    key = key_of(machine(args))
    return of_profile(_document(args), _loader(args), container(args), key)


def _document(args: argparse.Namespace) -> "Document":
    from shim import data, files
    from shim.profile import contents, document

    if args.image_profile:
        from shim.engines.docker.builtin import profile

        kind, _, version = args.image_profile.partition(":")
        if kind not in _KINDS or not version:
            hint = "write it as docker:20.10.7"
            raise ShimError("names no engine and version", subject=args.image_profile, hint=hint)
        found, reason = profile(version)
        if found is None:
            raise ShimError(reason, subject=args.image_profile)
        return found
    where = args.profile or str(data.directory("profiles") / "docker" / "default.json")
    parts = contents.read(files.read(where, document.MAX_BYTES), where).parts
    if len(parts) != 1:
        raise ShimError(
            f"holds {counted(len(parts), 'profile')}", subject=where, hint="give a file with one"
        )
    return parts[0].document


def _loader(args: argparse.Namespace) -> "Loader":
    from shim.cli.runtime_option import KINDS, loader
    from shim.host.runtimes import find
    from shim.profile.compile import token_of
    from shim.profile.model import NEWEST

    arch = token_of(args.machine) if args.machine else None
    name = args.runtime or next((kind for kind in KINDS if find(kind)), "")
    if name:
        return loader(name, args.for_libseccomp)._replace(arch=arch)
    return NEWEST[0]._replace(libseccomp=args.for_libseccomp, arch=arch)


def _living(args: argparse.Namespace) -> "Subject":
    """Return the filters of a process; ShimError: there is none, or they cannot be read."""
    from shim.risk.filter_source import NATIVE, Subject
    from shim.risk.live_filters import read
    from shim.risk.outlook import STRICT
    from shim.risk.watch_scope import container, unit

    name, pids = f"process {args.pid}", [args.pid]
    if args.container is not None:
        name, pids = container(args.container)
    elif args.unit is not None:
        name, pids = unit(args.unit)
    if key_of(os.uname().machine) != NATIVE:
        raise ShimError("filters are read from processes on x86-64 alone", subject=name)
    # The one that a container or unit began with has the filter that it was given; others that
    # are first in a namespace made that themselves.
    everyone = sorted(
        read(pids),
        key=lambda each: (each.inside != 1 and not args.unit, int(each.started), each.pid),
    )
    found = next(iter(everyone), None)
    if found is None:
        raise ShimError("there is no such process", subject=name)
    if found.unread:
        raise ShimError(found.unread, subject=name)
    if found.mode == STRICT:
        raise ShimError("is in strict mode (SECCOMP_MODE_STRICT), which is no filter", subject=name)
    programs = found.sets[0].programs if found.sets else ()
    count = counted(len(programs), "filter") if programs else "no filter"
    title = f"{name} ({found.name}), which has {count}"
    notes = tuple(
        f"{counted(other.threads, 'thread')} of it with other filters (not shown)"
        for other in found.sets[1:]
    )
    for what, some in (
        ("with other filters", [e for e in everyone if e.sets and e.sets[0].programs != programs]),
        ("without any", [e for e in everyone if not e.mode] if programs else []),
        ("not read", [e for e in everyone if e.unread]),
    ):
        if some:
            whose = f"{counted(len(some), 'process', 'processes')} of it {what}"
            notes += (f"{whose} (--pid {some[0].pid})",)
    return Subject(title, NATIVE, programs, notes=notes)
