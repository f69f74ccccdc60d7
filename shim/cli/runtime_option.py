"""What a runtime that is named on the command line makes of profiles."""

from typing import TYPE_CHECKING

from shim.errors import ShimError

if TYPE_CHECKING:
    from shim.host.runtimes import Runtime
    from shim.profile.model import Loader

# The runtimes whose ways with a profile are known.
KINDS = ("runc", "crun")


def loader(name: str, release: str = "") -> "Loader":
    """Return what ``name`` (runc, crun or a path) is to the model; ``release`` is libseccomp's.

    ShimError: it is neither runc nor crun, or does not tell its libseccomp.
    """
    from shim.host.libseccomp import system_libseccomp
    from shim.profile.libseccomp import HERE
    from shim.profile.model import Loader

    runtime = named(name)
    program, _, version = runtime.program.partition(" ")
    library = release or runtime.libseccomp
    if not library:
        raise ShimError("does not tell its libseccomp", subject=name, hint="add --for-libseccomp")
    same = not release and library == system_libseccomp([])[0]
    return Loader(program, version, HERE if same else library)


def line(name: str) -> str:
    """Tell whose ENOSYS line a profile's change is to keep: that of ``name``, or of the one here.

    runc comes first where both are here, as Docker has it; it is supposed where none is.
    """
    from shim.host.runtimes import about, find
    from shim.profile.enosys_line import IMPLIED, LISTED, NOBODY

    if name in KINDS and not find(name):
        return IMPLIED if name == "runc" else NOBODY
    if name:
        runtime = named(name)
    else:
        path = find("runc") or find("crun")
        if not path:
            return LISTED
        runtime = about(path)
    if runtime.program.startswith("crun "):
        return NOBODY
    return IMPLIED if runtime.is_at_least("runc", "1.1.15") else LISTED


def named(name: str) -> "Runtime":
    """Return the runtime that the user named: a program on PATH, or a path (it has a slash).

    ShimError: it cannot be run, or is neither runc nor crun.
    """
    import os

    from shim.host.runtimes import about, find

    path = os.path.abspath(name) if "/" in name else find(name)
    if not path:
        here = f"for the file here write ./{name}" if os.path.isfile(name) else ""
        raise ShimError("no such runtime on PATH", subject=name, hint=here)
    if not os.path.exists(path):
        raise ShimError("no such runtime", subject=name)
    if not os.path.isfile(path):
        raise ShimError("is no program", subject=name)
    if not os.access(path, os.X_OK):
        raise ShimError("is not executable", subject=name)
    runtime = about(path)
    if runtime.program.partition(" ")[0] not in KINDS:
        told = f"it calls itself {runtime.program}" if runtime.program else ""
        raise ShimError("is neither runc nor crun", subject=name, hint=told)
    return runtime
