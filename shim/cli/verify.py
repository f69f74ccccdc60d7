"""The verb verify: prove what distinguishes two filters."""

import argparse
import json
import sys
from typing import TYPE_CHECKING

from shim.cli.container_options import add_container_options, container, key_of, machine
from shim.cli.verify_report import Comparison, report, show
from shim.errors import ShimError, counted, printable

if TYPE_CHECKING:
    from shim.bpf.equivalence import Difference
    from shim.profile.document import Document
    from shim.profile.model import Loaded, Loader

    Source = Document | bytes

DESCRIPTION = """\
Prove what distinguishes two seccomp filters: list every system call, for every
architecture and all arguments, that AFTER answers differently than BEFORE.
Nothing is sampled: both programs are followed on all their paths.

BEFORE and AFTER are Docker profiles, OCI linux.seccomp, whole config.json
files, YAML with SeccompProfile resources or JSON profiles inside, or raw BPF
programs, told apart by content. Where YAML holds several profiles, each is
compared with the one of the same name."""

EPILOG = """\
Profiles are compared as runc and as crun load them: runc answers ENOSYS to
calls newer than every name of a profile, crun does not. What differs under one
of them only is marked so. Every name counts as known to libseccomp, unless
--for-libseccomp names a release (2.5.0 and later; upstream's: Debian 12's 2.5.4
also knows the names of 2.5.5), or --runtime a runtime, which is asked for its
version and that of its libseccomp.

exit statuses:
  0  the difference is exactly calls that are newer than Linux 5.17, or named
     with --add, newly allowed on this machine's architecture (and on x32 where
     a profile's name brings them), or there is none: the last line says which.
     With --enosys also calls that no rule of BEFORE names, which get ENOSYS in
     place of another errno
  1  anything else differs, or the proof had to give up (incomplete)
  2  error

examples:
  seccomp-shim verify default.json patched.json
  seccomp-shim patch --when always p.json | seccomp-shim verify p.json -
  seccomp-shim verify --for-libseccomp 2.5.4 default.json patched.json
  seccomp-shim verify --runtime runc default.json patched.json
  seccomp-shim verify --cap SYS_ADMIN --kernel 6.12 default.json patched.json"""


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "verify",
        help="prove what distinguishes two profiles or filters",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("before", metavar="BEFORE", help="a profile or BPF; - is standard input")
    parser.add_argument("after", metavar="AFTER", help="a profile or BPF; - is standard input")
    parser.add_argument("--json", action="store_true", help="print the difference as JSON")
    add_container_options(parser)
    parser.add_argument(
        "--for-libseccomp",
        metavar="VERSION",
        default="",
        help="show what a runtime with this release (2.5.4) would load of both profiles",
    )
    parser.add_argument(
        "--runtime",
        metavar="runc|crun|PATH",
        default="",
        help="show what this runtime here would load of both profiles",
    )
    parser.add_argument(
        "--add",
        action="append",
        default=[],
        metavar="NAME",
        help="also accept this call, as patch adds it; may be repeated",
    )
    parser.add_argument(
        "--also-on",
        action="append",
        default=[],
        metavar="ARCH",
        help="also accept a call on this architecture (i386, x32, arm, ...) where it is newly "
        "allowed on the machine's own",
    )
    parser.add_argument(
        "--enosys",
        action="store_true",
        help="also accept ENOSYS in place of another errno, for calls that no rule of BEFORE names",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Compare and print; 0 if only calls of the catalogue, or nothing, became allowed."""
    from shim import catalog
    from shim.catalog.table import numbers
    from shim.profile.compile import name_of
    from shim.profile.enosys_edit import free
    from shim.profile.loosening import assess

    if args.before == args.after == "-":
        raise ShimError("standard input can be read once only", subject="-")
    container(args)  # what is wrong with these options is wrong with programs as well
    pairs = _pairs(args)
    for word, names in ((args.add, catalog.every()), (args.also_on, numbers())):
        for name in word:
            if name not in names:
                kind = "system call" if word is args.add else "architecture"
                raise ShimError(f"is no {kind} that we know", subject=name)
    known = catalog.load() | {name: catalog.every()[name] for name in args.add}
    native = key_of(machine(args))
    reports = []
    good = True
    for name, before, after in pairs:
        by_name = not isinstance(before, bytes) and not isinstance(after, bytes)
        if args.for_libseccomp and not by_name:
            raise ShimError("a BPF program has no names", hint="--for-libseccomp compares profiles")
        unnamed: frozenset[str] = frozenset()
        if args.enosys:
            if isinstance(before, bytes):
                raise ShimError("a BPF program has no names", hint="--enosys compares profiles")
            unnamed = free(before)
        loaders = _loaders(args, by_name=by_name)
        found = _found(before, after, args, loaders)
        assessed = {
            program: assess(
                each,
                known,
                name_of,
                by_name=by_name,
                also_on=args.also_on,
                native=native,
                unnamed=unnamed,
            )
            for program, each in found.items()
        }
        unseen = False
        if any(loader.libseccomp for loader in loaders) and all(e.equal for e in found.values()):
            written = [loader._replace(libseccomp="") for loader in loaders]
            unseen = not all(e.equal for e in _found(before, after, args, written).values())
        outcome = Comparison(args, loaders, found, assessed, unseen, _unknown(before, after))
        good = good and outcome.verdict in ("none", "catalogue")
        if args.json:
            title = {"profile": name} if len(pairs) > 1 else {}
            reports.append({**title, **report(outcome)})
            continue
        if len(pairs) > 1:
            print(printable(f"{name}:"))
        show(outcome)
    if args.json:
        print(json.dumps(reports if len(pairs) > 1 else reports[0], indent=2))
    return 0 if good else 1


def _loaders(args: argparse.Namespace, *, by_name: bool) -> "list[Loader]":
    """Return the runtimes by which to compare: the one that was named, or both kinds.

    Of a program that was read from a container nobody knows which loaded it: crun's way adds
    nothing to the other side.
    """
    from shim.cli.runtime_option import loader
    from shim.profile.compile import token_of
    from shim.profile.model import NEWEST

    arch = token_of(args.machine) if args.machine else None
    if args.runtime:
        return [loader(args.runtime, args.for_libseccomp)._replace(arch=arch)]
    kinds = [each._replace(libseccomp=args.for_libseccomp, arch=arch) for each in NEWEST]
    return kinds if by_name else kinds[-1:]


def _found(
    before: "Source", after: "Source", args: argparse.Namespace, loaders: "list[Loader]"
) -> "dict[str, Difference]":
    """Compare under each of ``loaders``, once where their own parts are the same on both sides."""
    from shim.bpf.equivalence import difference
    from shim.profile.model import whole

    found: dict[str, Difference] = {}
    for loader in reversed(loaders):
        old, new = (_loaded(each, args, loader) for each in (before, after))
        if found and old.lines == new.lines and old.default == new.default:
            found[loader.program] = next(iter(found.values()))
        else:
            found[loader.program] = difference(whole(old), whole(new))
    return found


def _unknown(*sources: "Source") -> tuple[str, ...]:
    from shim.host.libseccomp import unknown
    from shim.profile.document import names

    return unknown(name for each in sources if not isinstance(each, bytes) for name in names(each))


def _pairs(args: argparse.Namespace) -> "list[tuple[str, Source, Source]]":
    """Return what is to be compared with what: one pair, or one a profile of YAML."""
    before, after = read(args.before), read(args.after)
    if len(before) == len(after) == 1:
        return [("", before[0][1], after[0][1])]
    names = [name for name, _ in before]
    if names != [name for name, _ in after]:
        raise ShimError(
            f"holds {counted(len(before), 'profile')}, not the same as the other, which holds "
            f"{len(after)}",
            subject=args.before,
        )
    return [(one[0], one[1], other[1]) for one, other in zip(before, after, strict=True)]


def read(file: str) -> "list[tuple[str, Source]]":
    """Read profiles with their names, or a BPF program: only that has zero bytes in front."""
    from shim import files
    from shim.bpf.program import BpfError, check, decode
    from shim.profile import contents, document

    limit = document.MAX_BYTES
    if file == "-":
        data, where = sys.stdin.buffer.read(limit + 1), "standard input"
    else:
        data, where = files.read(file, limit), file
    if b"\0" not in data[:8]:
        return [(part.name, part.document) for part in contents.read(data, where).parts]
    try:
        check(decode(data))
    except BpfError as error:
        raise ShimError(error.message, subject=where, hint="neither JSON nor valid BPF") from None
    return [("", data)]


def _loaded(source: "Source", args: argparse.Namespace, loader: "Loader") -> "Loaded":
    from shim.profile.document import resolved
    from shim.profile.model import Loaded, loaded

    if isinstance(source, bytes):
        return Loaded(source, 0, (), {})
    seccomp = resolved(source, **container(args))
    try:
        return loaded(seccomp, loader)
    except ShimError as error:
        if error.subject in (args.for_libseccomp, loader.version):
            raise
        subject = f"{source.where} {error.subject}".strip()
        raise ShimError(error.message, subject=subject, hint=error.hint) from None
