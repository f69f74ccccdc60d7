"""What a starting container needs, from the kernel's state and what its config.json says."""

import os

from shim.errors import ShimError
from shim.profile.evaluate import says

# crun takes a raw program from this annotation instead of linux.seccomp (crun.1, 0.18). Engines
# pass users' annotations on: then only the program itself can tell what it denies.
RAW_BPF = "run.oci.seccomp_bpf_data"


# What a profile's author said of the very call. To allow it for some arguments denies the others.
_MEANT = ("explicit-deny", "supervised", "conditional")


class LeftAlone(Exception):  # noqa: N818 - a decision, not an error
    """There is nothing to do; the message says why."""


def denied_by_default(
    config: "dict[str, object]", calls: "dict[str, int]", *, raw_bpf: bool
) -> "tuple[dict[str, int], dict[str, int], str]":
    """Sort ``calls`` by what ``config`` says: denied only by the default, allowed by name, reasons.

    The reasons tell of those that are in neither. With ``raw_bpf`` the runtime may be one that
    takes a program from the annotation, of which nothing is known yet: what the profile denies by
    name stays denied then, too. ShimError: the profile cannot be understood.
    """
    linux = config.get("linux") or {}
    annotations = config.get("annotations") or {}
    if not isinstance(linux, dict) or not isinstance(annotations, dict):
        raise ShimError("linux or annotations is not an object", subject="config.json")
    program = raw_bpf and RAW_BPF in annotations
    denied, named, reasons = {}, {}, []
    for name, nr in calls.items():
        verdict, reason = says(linux.get("seccomp"), name)
        # Runtimes add the profile's architectures to the native one, which a filter always has:
        # a profile for others alone denies all of x86-64 by its default.
        if verdict in ("denied-by-default", "no-x86-64") or (program and verdict not in _MEANT):
            denied[name] = nr
        elif verdict == "allows":
            named[name] = nr
        else:
            reasons.append(f"{name}: {verdict}: {reason}")
    return denied, named, "; ".join(reasons)


def takes_program(config: "dict[str, object]", runtime: str) -> bool:
    """Tell whether ``runtime`` loads a program that the annotation of ``config`` has."""
    annotations = config.get("annotations") or {}
    return RAW_BPF in annotations and _may_take(runtime)  # type: ignore[operator]  # looked at


def _may_take(runtime: str) -> bool:
    return not os.path.basename(runtime).startswith("runc")


def needing(
    config: "dict[str, object]", calls: "dict[str, int]", runtime: str
) -> "tuple[dict[str, int], str]":
    """Give those of ``calls`` that a filter made of ``config`` denies by its default, and why not.

    ``runtime`` makes it: a path, or a name to be looked for. The reason tells of the other calls.
    ShimError: the profile cannot be understood.
    """
    denied, named, reason = denied_by_default(config, calls, raw_bpf=_may_take(runtime))
    for name, nr in named.items():
        if _knows(runtime, name):
            reason += f"; {name}: allowed by name, which {runtime} knows"
        else:
            denied[name] = nr
    return denied, reason.lstrip("; ")


def _knows(runtime: str, name: str) -> bool:
    from shim.catalog import load
    from shim.host.runtimes import knows, libseccomp_version

    call = load().get(name)
    return call is not None and knows(libseccomp_version(runtime), call.libseccomp)
