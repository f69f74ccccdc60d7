"""The verb probe: what this kernel and this host's libraries do with the calls."""

import argparse
import json
from typing import Any

from shim.cli.output import row

DESCRIPTION = """\
Ask this kernel, by trying it out in child processes, what a seccomp filter does
to the calls that the kernel itself makes a process issue (uretprobe, uprobe).
Version numbers decide nothing, since distribution kernels backport. No
privilege is needed; what root finds is kept until the next boot, for everybody."""

EPILOG = """\
verdicts:
  absent    the kernel has no such call
  filtered  a profile decides: one that does not know the call kills the process
  exempt    the kernel lets it pass every profile
  unknown   it could not be told from here, such as inside a container

examples:
  seccomp-shim probe
  seccomp-shim probe --fresh
  seccomp-shim probe --json | jq -r .syscalls.uretprobe.state

exit statuses: 0 whatever the verdict, 2 error."""

_MEANING = {
    "absent": "this kernel has no such call: nothing needs to be done",
    "filtered": "a profile that does not know it kills the process: adjustments are needed",
    "exempt": "this kernel lets it pass every profile: nothing needs to be done",
    "unknown": "it could not be told",
}

# kernel.yama.ptrace_scope (Documentation/admin-guide/LSM/Yama.rst)
_YAMA = {
    0: "Yama restricts nobody (scope 0)",
    1: "Yama restricts ordinary users to their children (scope 1)",
    2: "Yama restricts it to administrators (scope 2): the hook can work",
    3: "Yama forbids it to everybody (scope 3): the hook cannot trace",
}


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "probe",
        help="tell what this kernel does with the calls that profiles do not know",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument(
        "--fresh", action="store_true", help="ask again, whatever was found earlier in this boot"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Probe and print."""
    host = _host(fresh=args.fresh)
    if args.json:
        print(json.dumps(host, indent=2))
    else:
        for label, text in _rows(host):
            row(label, text, 12, columns=80)
    return 0


def _rows(host: dict[str, Any]) -> list[tuple[str, str]]:
    """Put the document in words: a label and a line each."""
    kernel = host["kernel"]
    rows = [("kernel", f"{kernel['release']} {kernel['machine']}, boot {kernel['boot_id']}")]
    for name, call in host["syscalls"].items():
        reason = f": {call['reason']}" if "reason" in call else ""
        rows.append((name, f"{call['state']:9} {_MEANING[call['state']]}{reason}"))
    inside = "under a seccomp filter itself" if host["prober"]["filtered"] else "under no filter"
    rows.append(("this probe", f"was made {inside}"))
    scope = host["ptrace"]["yama_scope"]
    yama = "there is no Yama" if scope is None else _YAMA.get(scope, f"Yama scope {scope}")
    rows.append(("ptrace", yama))
    library = host["libseccomp"]
    if "error" in library:
        rows.append(("libseccomp", library["error"]))
    else:
        lacking = [name for name, known in library["resolves"].items() if not known]
        what = f"does not know {', '.join(lacking)}" if lacking else "knows every call"
        rows.append(("libseccomp", f"{library['version']} {what}"))
    for path, version in host["runtimes"].items():
        rows.append(("runtime", f"{path} with libseccomp {version or 'of unknown version'}"))
    if not host["runtimes"]:
        rows.append(("runtime", "neither runc nor crun found"))
    return rows


def _host(*, fresh: bool) -> dict[str, Any]:
    """Gather the document that ``--json`` prints."""
    from shim.catalog import load
    from shim.host.cache import facts
    from shim.host.effect import library
    from shim.host.runtimes import find, libseccomp_version

    runtimes = [path for name in ("runc", "crun") if (path := find(name))]
    return {
        **facts(fresh=fresh),
        "ptrace": {"yama_scope": _yama_scope()},
        "libseccomp": library(load()),
        "runtimes": {path: libseccomp_version(path) for path in runtimes},
    }


def _yama_scope() -> int | None:
    """Return kernel.yama.ptrace_scope, None on a kernel without Yama."""
    try:
        with open("/proc/sys/kernel/yama/ptrace_scope", encoding="ascii") as file:
            return int(file.read())
    except FileNotFoundError:
        return None
