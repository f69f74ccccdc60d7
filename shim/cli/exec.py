"""The verb exec: run a program of this host under a profile that was augmented first."""

import argparse
import os
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from shim.cli import when_option
from shim.cli.container_options import add_container_options, container
from shim.errors import ShimError, printable

if TYPE_CHECKING:
    from shim.profile.compile import Built
    from shim.profile.document import Document
    from shim.profile.edit import Finding

DESCRIPTION = """\
Load a seccomp profile with libseccomp and run a program under it. What the
kernel makes processes call by itself (uretprobe, uprobe) is allowed where the
profile denies it by its default only; what it denies by name stays denied. The
addition is proven to be the only one, and logged, before it is loaded.

Takes Docker profiles, OCI linux.seccomp and whole config.json files. Without
CAP_SYS_ADMIN the program runs with no_new_privs, as the kernel demands."""

EPILOG = """\
examples:
  seccomp-shim exec --profile /etc/docker/seccomp.json -- ls -l
  seccomp-shim exec --profile p.json --when always --cap SYS_PTRACE -- strace ls

exit statuses: those of the program; 2 if it was not started."""

_CAP_SYS_ADMIN = 21


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "exec",
        help="run a program under an augmented profile",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--profile", required=True, metavar="FILE", help="the profile")
    add_container_options(parser)
    when_option.add(parser)
    parser.add_argument("command", nargs="+", metavar="CMD", help="the program and its arguments")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Become the program; returns only by an exception."""
    from shim import files
    from shim.catalog import kernel_injected
    from shim.host import cache
    from shim.host.libseccomp import about_unknown, unknown
    from shim.profile import compile as compiler
    from shim.profile.document import MAX_BYTES, names, read, resolved
    from shim.profile.edit import amended, plan

    path = _program(args.command[0])
    document = read(files.read(args.profile, MAX_BYTES), args.profile)
    states = {} if args.when == "always" else cache.states()
    edits, findings = plan(document, kernel_injected().values(), states, args.when)
    after = document._replace(tree=amended(document.tree, edits))
    described = container(args)
    _refuse_notify(after, resolved(after, **described))
    built = compiler.build(resolved(after, **described), native_only=True)
    if built.filter is None:
        raise ShimError("holds no filter: the program would run unconfined", subject=document.where)
    plain = compiler.build(resolved(document, **described), native_only=True)
    _prove_and_log(document, plain.program(), built.program(), findings)
    if told := about_unknown(unknown(names(document))):
        print(f"seccomp-shim exec: {printable(document.where)}: {told}", file=sys.stderr)
    _exec_under(path, args.command, built)


def _program(command: str) -> str:
    """Find the program while nothing forbids to look for it."""
    import shutil

    path = shutil.which(command)
    if path is None:
        raise ShimError("no such program", subject=command)
    return path


def _refuse_notify(document: "Document", seccomp: dict[str, Any] | None) -> None:
    for rule in (seccomp or {}).get("syscalls") or []:
        if rule.get("action") == "SCMP_ACT_NOTIFY":
            raise ShimError(
                "has rules with SCMP_ACT_NOTIFY, and no supervisor would answer",
                subject=document.where,
                hint="only a container runtime can hand over the listener",
            )


def _prove_and_log(
    document: "Document", before: bytes, after: bytes, findings: "list[Finding]"
) -> None:
    """Log every finding; ShimError: the addition is not proven the only one, or not logged."""
    import hashlib

    from shim import catalog
    from shim.bpf.equivalence import difference
    from shim.log import record
    from shim.profile.compile import name_of
    from shim.profile.loosening import assess

    found = difference(before, after)
    assessed = assess(found, catalog.load(), name_of, by_name=True)
    allowed = {each.name for each in assessed if each.accepted}
    wrong = [each for each in assessed if not each.accepted]
    if wrong or not found.complete:
        what = str(wrong[0].change) if wrong else found.reason
        raise ShimError(
            f"the addition is not proven to be the only change: {what}", subject=document.where
        )
    common: dict[str, Any] = {
        "mechanism": "libseccomp",
        "profile": os.path.realpath(document.where),
        "proof": f"every path of both programs: {', '.join(sorted(allowed)) or 'nothing'} newly "
        "allowed, nothing else differs",
        "pid": os.getpid(),
        "kernel": os.uname().release,
        "length_before": len(before) // 8,
        "length_after": len(after) // 8,
        "sha256_before": hashlib.sha256(before).hexdigest(),
        "sha256_after": hashlib.sha256(after).hexdigest(),
    }
    for finding in findings:
        now = "allowed" if finding.syscall in allowed else finding.verdict
        record(
            "exec",
            syscall=finding.syscall,
            before=finding.verdict,
            after=now,
            reason=finding.reason,
            **common,
        )


def _exec_under(path: str, command: list[str], built: "Built") -> NoReturn:
    """Load the filter and exec; the signals that Python ignores get their defaults back first."""
    import signal

    from shim import abi
    from shim.host import libc

    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    sys.stdout.flush()
    sys.stderr.flush()
    if built.filter is not None:
        if not _may_load():
            libc.prctl(abi.PR_SET_NO_NEW_PRIVS, 1)
        built.filter.load()
    try:
        os.execv(path, command)  # noqa: S606 - the admin named the program, no shell is wanted
    except OSError as error:
        reason = f"cannot be started under the profile: {error.strerror}"
        raise ShimError(reason, subject=printable(path)) from None


def _may_load() -> bool:
    """Tell whether the kernel takes a filter from this process without no_new_privs."""
    from shim.host.processes import effective_capabilities

    return bool(effective_capabilities() >> _CAP_SYS_ADMIN & 1)
