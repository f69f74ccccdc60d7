"""``seccomp-shim probe``: what this kernel and this host's libraries do with the calls."""

import argparse
import json
import os
import shutil
from typing import Any

_MEANING = {
    "absent": "the kernel has no such call: nothing can go wrong",
    "filtered": "a profile that does not name it kills the process: adjustments are needed",
    "exempt": "the kernel lets it pass every filter: nothing needs to be done",
    "unknown": "could not be told",
}


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "probe",
        help="tell what this kernel does with the calls that profiles do not know",
        description="Ask this kernel, by trying it out in child processes, what a seccomp filter "
        "does to the calls that the kernel itself makes a process issue. The version number "
        "decides nothing: distribution kernels backport. No privilege is needed.",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument(
        "--fresh", action="store_true", help="ask again, whatever was found earlier in this boot"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Probe and print."""
    found = _host(fresh=args.fresh)
    if args.json:
        print(json.dumps(found, indent=2))
        return 0
    kernel = found["kernel"]
    print(f"kernel      {kernel['release']} {kernel['machine']}, boot {kernel['boot_id']}")
    for name, call in found["syscalls"].items():
        reason = f" ({call['reason']})" if "reason" in call else ""
        print(f"{name:11} {call['state']}: {_MEANING[call['state']]}{reason}")
    inside = "inside a seccomp filter itself" if found["prober"]["filtered"] else "not filtered"
    print(f"this probe  {inside}; yama ptrace_scope {found['ptrace']['yama_scope']}")
    library = found["libseccomp"]
    if "error" in library:
        print(f"libseccomp  {library['error']}")
    else:
        lacking = [name for name, known in library["resolves"].items() if not known]
        what = f"does not know {', '.join(lacking)}" if lacking else "knows every call"
        print(f"libseccomp  {library['version']} {what}")
    for path, version in found["runtimes"].items():
        print(f"runtime     {path}, libseccomp {version or 'version not told'}")
    return 0


def _host(*, fresh: bool) -> dict[str, Any]:
    """Gather the document that ``--json`` prints."""
    from shim.catalog import load
    from shim.errors import ShimError
    from shim.host.cache import facts
    from shim.host.libseccomp import system_libseccomp
    from shim.host.runtime import libseccomp_version

    library: dict[str, Any]
    try:
        version, resolves = system_libseccomp(list(load()))
        library = {"version": version, "resolves": resolves}
    except ShimError as error:
        library = {"error": str(error)}
    runtimes = [os.path.realpath(path) for n in ("runc", "crun") if (path := shutil.which(n))]
    return {
        **facts(fresh=fresh),
        "ptrace": {"yama_scope": _yama_scope()},
        "libseccomp": library,
        "runtimes": {path: libseccomp_version(path) for path in runtimes},
    }


def _yama_scope() -> int | None:
    """Give kernel.yama.ptrace_scope, None on a kernel without Yama."""
    try:
        with open("/proc/sys/kernel/yama/ptrace_scope", encoding="ascii") as file:
            return int(file.read())
    except FileNotFoundError:
        return None
