"""What a runtime keeps of a running container: the filter that ``exec`` will make of it."""

from shim import files
from shim import lightos as os
from shim.errors import ShimError
from shim.startjson import loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from shim.start.spec import Spec

_LIMIT = 16 << 20
# runc's own numbers for what it read as SCMP_ACT_* (libcontainer/configs/config.go).
_ACTIONS = {
    1: "SCMP_ACT_KILL",
    2: "SCMP_ACT_ERRNO",
    3: "SCMP_ACT_TRAP",
    4: "SCMP_ACT_ALLOW",
    5: "SCMP_ACT_TRACE",
    6: "SCMP_ACT_LOG",
    7: "SCMP_ACT_NOTIFY",
    8: "SCMP_ACT_KILL_THREAD",
    9: "SCMP_ACT_KILL_PROCESS",
}


def directory(root: str, container: str, real: str) -> "tuple[str, bool]":
    """Find where runtime ``real`` keeps ``container``, and tell whether that is crun's way.

    ``root`` is what the command line says, empty for the runtime's default. ShimError: nowhere.
    """
    if not container or "/" in container or container in (".", ".."):
        raise ShimError("is no name of a container", subject=container)
    ways = [("state.json", False, root or _runc_root()), ("status", True, root or _crun_root())]
    if "crun" in os.path.basename(real):
        ways.reverse()
    for name, cruns, where in ways:
        path = f"{where}/{container}"
        if os.path.isfile(f"{path}/{name}"):
            return path, cruns
    raise ShimError(f"no state of {os.path.basename(real)} that can be read", subject=container)


def runc_config(path: str) -> "tuple[Spec, str]":
    """Read the container's profile, as an OCI config with nothing else, and its bundle.

    runc keeps in ``path``/state.json what it made of the profile when it created the container, and
    ``runc exec`` reads that alone (libcontainer.Load). ShimError: it is not as we know it.
    """
    from shim.start.spec import Spec  # no exec by crun needs it

    subject = f"{path}/state.json"
    try:
        config = loads(files.read_regular(subject, _LIMIT))["config"]
        seccomp, labels = config["seccomp"], config["labels"]
        profile = None if seccomp is None else _profile(seccomp)
    except OSError as error:
        raise ShimError(f"cannot read: {error.strerror}", subject=subject) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ShimError(f"is not what runc writes: {error!r}", subject=subject) from None
    bundles = [text for text in labels or () if isinstance(text, str) and text[:7] == "bundle="]
    return Spec({"linux": {"seccomp": profile}}), "".join(bundles[:1])[7:]


def crun_filter(path: str) -> bytes:
    """Read the program that ``crun exec`` loads, empty where the container has none.

    crun keeps it in ``path``/seccomp.bpf (libcrun_open_seccomp_bpf). ShimError: it cannot be read.
    """
    try:
        return files.read_regular(f"{path}/seccomp.bpf", _LIMIT, os.O_NOFOLLOW)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise ShimError(f"cannot read: {error.strerror}", subject=f"{path}/seccomp.bpf") from None


def replace_crun_filter(path: str, program: bytes) -> None:
    """Put ``program`` in the place of the one that ``crun exec`` loads; OSError if it does not go.

    The file is replaced, never written to: crun links it with those of all containers of the same
    profile (``.cache/seccomp``, since 1.5).
    """
    from shim import atomic

    atomic.write_atomic(f"{path}/seccomp.bpf", program, durable=False)


def _profile(seccomp: "dict[str, Any]") -> "dict[str, Any]":
    """Return runc's idea of a profile in the words of the OCI spec, as far as verdicts go."""
    return {
        "defaultAction": _ACTIONS[seccomp["default_action"]],
        "defaultErrnoRet": seccomp.get("default_errno_ret"),
        "architectures": [_architecture(name) for name in seccomp.get("architectures") or ()],
        "syscalls": [
            {
                "names": [rule["name"]],
                "action": _ACTIONS[rule["action"]],
                "errnoRet": rule.get("errnoRet"),
                "args": rule.get("args"),
            }
            for rule in seccomp["syscalls"] or ()
        ],
    }


def _architecture(name: str) -> str:
    """Return the spec's name of runc's ``amd64``, x86, x32 (libcontainer/seccomp/config.go)."""
    from shim.profile.evaluate import X86_64

    return X86_64 if name == "amd64" else f"SCMP_ARCH_{name.upper()}"


def _runc_root() -> str:
    """Return the root of runc's states (runc, main.go and rootless_linux.go)."""
    directory = os.environ.get("XDG_RUNTIME_DIR")
    if directory and (os.geteuid() or (_in_user_namespace() and os.environ.get("USER") != "root")):
        return f"{directory}/runc"
    return "/run/runc"


def _crun_root() -> str:
    """Return the root of crun's states (crun, src/libcrun/status.c)."""
    directory = os.environ.get("XDG_RUNTIME_DIR")
    return f"{directory}/crun" if directory else "/run/crun"


def _in_user_namespace() -> bool:
    """Tell whether user ids are mapped: the first user namespace maps all of them to themselves."""
    with open("/proc/self/uid_map", "rb") as file:
        return file.read().split() != [b"0", b"0", b"4294967295"]
