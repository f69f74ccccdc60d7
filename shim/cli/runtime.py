"""What a runtime that is named on the command line makes of profiles."""

from typing import TYPE_CHECKING

from shim.errors import ShimError

if TYPE_CHECKING:
    from shim.host.runtimes import Runtime
    from shim.profile.model import Loader


def loader(name: str, release: str = "") -> "Loader":
    """Return what ``name`` (runc, crun or a path) is to the model; ``release`` is libseccomp's.

    ShimError: it is neither runc nor crun, or does not tell its libseccomp.
    """
    from shim.host.libseccomp import system_libseccomp
    from shim.profile.libseccomp import HERE
    from shim.profile.model import Loader

    runtime = _found(name)
    program, _, version = runtime.program.partition(" ")
    if program not in ("runc", "crun"):
        raise ShimError("is neither runc nor crun: what it loads is not modelled", subject=name)
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

    if name in ("runc", "crun") and not find(name):
        return IMPLIED if name == "runc" else NOBODY
    if name:
        runtime = _found(name)
    else:
        path = find("runc") or find("crun")
        if not path:
            return LISTED
        runtime = about(path)
    if runtime.program.startswith("crun "):
        return NOBODY
    return IMPLIED if runtime.is_at_least("runc", "1.1.15") else LISTED


def _found(name: str) -> "Runtime":
    from shim.host.runtimes import about, find

    path = name if "/" in name else find(name)
    if not path:
        raise ShimError("no such runtime", subject=name)
    return about(path)
