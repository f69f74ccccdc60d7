"""The verb verify: prove what distinguishes two filters."""

import argparse
import json
import sys
from typing import TYPE_CHECKING

from shim.cli.container import add_container_options, container
from shim.errors import ShimError, printable

if TYPE_CHECKING:
    from shim.filter.judge import Judged
    from shim.filter.prove import Difference
    from shim.profile.document import Document

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
Profiles are read as they are written: a call whose name the libseccomp here
does not know gets its number from the catalogue. With --for-libseccomp names
are dropped as a runtime with that upstream release would drop them; some
distributions teach theirs a few more (Debian 12's 2.5.4 knows those of 2.5.5).
The ENOSYS answers that runc adds for calls newer than the whole profile are in
raw BPF read from a container, but not in what is made here from a profile.

exit codes:
  0  the difference is exactly calls of the catalogue, newly allowed on x86-64
     (and on x32 where a profile's name brings them), or there is none: the
     last line says which of the two
  1  anything else differs, or the proof had to give up (incomplete)
  2  error

examples:
  seccomp-shim verify default.json patched.json
  seccomp-shim patch --when always p.json | seccomp-shim verify p.json -
  seccomp-shim verify --for-libseccomp 2.5.4 default.json patched.json
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
        "--also-on",
        action="append",
        default=[],
        choices=("x32", "i386"),
        help="also accept a call on this architecture where it is newly allowed on x86-64",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Compare and print; 0 if only calls of the catalogue, or nothing, became allowed."""
    from shim import catalog
    from shim.filter.compile import name_of
    from shim.filter.judge import judge
    from shim.filter.prove import difference

    if args.before == args.after == "-":
        raise ShimError("standard input can be read once only", subject="-")
    pairs = _pairs(args)
    known = catalog.load()
    release = args.for_libseccomp
    reports = []
    good = True
    for name, before, after in pairs:
        by_name = not isinstance(before, bytes) and not isinstance(after, bytes)
        if release and not by_name:
            raise ShimError("a BPF program has no names", hint="--for-libseccomp compares profiles")
        found = difference(_program(before, args, release), _program(after, args, release))
        judged = judge(found, known, name_of, by_name=by_name, also_on=args.also_on)
        unseen = False
        if release and found.equal:
            unseen = not difference(_program(before, args, ""), _program(after, args, "")).equal
        verdict = _verdict(found, judged)
        good = good and verdict in ("none", "catalogue")
        if args.json:
            title = {"profile": name} if len(pairs) > 1 else {}
            reports.append({**title, **_report(args, found, judged, verdict, unseen)})
            continue
        if len(pairs) > 1:
            print(printable(f"{name}:"))
        _show(found, judged)
        print(_conclusion(judged, verdict, release, unseen=unseen))
    if args.json:
        print(json.dumps(reports if len(pairs) > 1 else reports[0], indent=2))
    return 0 if good else 1


def _pairs(args: argparse.Namespace) -> "list[tuple[str, Source, Source]]":
    """Give what is to be compared with what: one pair, or one a profile of YAML."""
    before, after = read(args.before), read(args.after)
    if len(before) == len(after) == 1:
        return [("", before[0][1], after[0][1])]
    names = [name for name, _ in before]
    if names != [name for name, _ in after]:
        raise ShimError(
            f"holds {len(before)} profiles, not the same as the other, which holds {len(after)}",
            subject=args.before,
        )
    return [(one[0], one[1], other[1]) for one, other in zip(before, after, strict=True)]


def read(file: str) -> "list[tuple[str, Source]]":
    """Read profiles with their names, or a BPF program: only that has zero bytes in front."""
    from shim import files
    from shim.filter.bpf import BpfError, check, decode
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


def _program(source: "Source", args: argparse.Namespace, release: str) -> bytes:
    from shim.filter import compile as compiler
    from shim.filter.resolve import flat

    if isinstance(source, bytes):
        return source
    seccomp = flat(source, **container(args))
    try:
        return compiler.program(seccomp, release)
    except ShimError as error:
        if error.subject == release != "":
            raise
        subject = f"{source.where} {error.subject}".strip()
        raise ShimError(error.message, subject=subject, hint=error.hint) from None


def _verdict(found: "Difference", judged: "list[Judged]") -> str:
    if not found.complete:
        return "incomplete"
    if not judged:
        return "none"
    return "catalogue" if all(each.accepted for each in judged) else "other"


def _show(found: "Difference", judged: "list[Judged]") -> None:
    from shim.filter.bpf import action_name

    rows = [("", "ARCH", "NR", "NAME", "BEFORE", "AFTER", "NOTE")] if judged else []
    for each in judged:
        change = each.change
        note = f"{each.note}: {change.condition}" if change.condition else each.note
        verdicts = action_name(change.before), action_name(change.after)
        mark = "ok" if each.accepted else "!!"
        name = each.name or "-"
        rows.append((mark, change.arch_name, change.nr_text, name, *verdicts, note))
    widths = [max(len(row[column]) for row in rows) for column in range(6)] if rows else []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row[:6], widths, strict=True)]
        print(printable("  ".join([*cells, row[6]])))
    if not found.complete:
        print(f"incomplete: {found.reason}")


def _conclusion(judged: "list[Judged]", verdict: str, release: str, *, unseen: bool) -> str:
    if verdict == "incomplete":
        return "Not proven: the list above may lack differences."
    if verdict == "none":
        if not unseen:
            return "Proven: no difference, no system call is answered otherwise."
        return (
            f"Proven: a runtime with libseccomp {release} would load no difference at all. The "
            "profiles differ, but only by names that this release does not know and drops."
        )
    names = sorted({each.name for each in judged if each.accepted})
    if verdict == "catalogue":
        return f"Proven: newly allowed are {', '.join(names)}, and nothing else differs."
    wrong = sum(not each.accepted for each in judged)
    return f"Proven: {wrong} difference{'s' * (wrong > 1)} beyond catalogue calls on x86-64 (!!)."


def _report(
    args: argparse.Namespace,
    found: "Difference",
    judged: "list[Judged]",
    verdict: str,
    unseen: bool,
) -> dict[str, object]:
    from shim.filter.bpf import action_name

    changes = []
    for each in judged:
        change = each.change
        changes.append(
            {
                "arch": change.arch_name,
                "nr": [change.nr.low, change.nr.high],
                "nr_mask": change.nr.care or None,
                "name": each.name or None,
                "condition": change.condition,
                "before": action_name(change.before),
                "after": action_name(change.after),
                "accepted": each.accepted,
                "note": each.note,
            }
        )
    return {
        "before": args.before,
        "after": args.after,
        "libseccomp": args.for_libseccomp or None,
        "complete": found.complete,
        "reason": found.reason,
        "verdict": verdict,
        "differ_as_written": unseen or bool(judged),
        "changes": changes,
    }
