"""Podman's hook stage precreate: the whole config.json goes through here before it is written.

What can be done in it is done here, which costs less than an injection and holds for ``exec`` too.
What cannot, or only with a doubt, is left to the hook at createRuntime, which sees the runtime.
"""

import gc

from shim import config
from shim import lightos as os
from shim.errors import ShimError
from shim.start.hooks import parse
from shim.start.session import Start, needed_calls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from shim.host.runtimes import Runtime

USAGE = "usage: seccomp-shim-precreate [--config FILE] [--test-syscall NR] [--runtime NAME|PATH]"
_RUNTIMES = ("crun", "runc")
_ID, _HEX = 64, "0123456789abcdef"


def main(argv: "list[str]", data: bytes) -> bytes:
    """Return what is to be used in place of the config.json ``data``: itself, where in doubt."""
    gc.disable()  # a few milliseconds of life leave nothing worth collecting
    try:
        given, mistake = parse(argv, ("--config", "--test-syscall", "--runtime"), USAGE), ""
    except ShimError as error:
        given, mistake = {}, str(error)
    settings, doubt = config.load(given.get("--config", config.PATH))
    start = Start(settings)
    start.facts = {"mechanism": "", "kernel": os.uname().release}
    try:
        for reason in (mistake, doubt):
            if reason:
                start.log("config", level="error", reason=reason)
        calls, start.facts["state"], _ = needed_calls(
            int(given.get("--test-syscall", settings["test_syscall"]))
        )
        if (not calls and not start.unknown) or mistake:
            return data  # the hook says so
        return _changed(data, calls, _runtimes(given.get("--runtime", ""), settings), start)
    except Exception as error:  # a fault of ours must not be what stops a container
        start.log_failure(error)
        return data


def _changed(
    data: bytes, calls: "dict[str, int]", runtimes: "list[Runtime]", start: Start
) -> bytes:
    """Change the config.json if it comes out the same for all of ``runtimes``."""
    from shim.start.spec import LIMIT, parse
    from shim.start.wrapper.mechanism import change

    if len(data) > LIMIT:
        raise ShimError(f"a config.json of more than {LIMIT >> 20} MiB")
    spec = parse(data.decode())
    if container := _container(spec.config):
        start.facts["container"] = container
    made = [change(spec, calls, runtime, unknown=start.unknown) for runtime in runtimes]
    texts = {each.spec.text for each in made}
    if len(texts) != 1 or texts == {spec.text}:
        return data
    new = made[0].spec.proved().encode()
    start.facts |= {"mechanism": made[0].mechanism, **made[0].facts}
    start.facts["runtime"] = ",".join(runtime.path for runtime in runtimes)
    # Not "adjusted": it may be another runtime that Podman calls, which takes no notice.
    start.log("requested")
    return new


def _container(config: "dict[str, Any]") -> str:
    """Return the container's id, which only the paths that Podman makes have; empty: none has."""
    linux, mounts = config.get("linux"), config.get("mounts")
    group = linux.get("cgroupsPath") if isinstance(linux, dict) else None
    found = [str(group).rpartition("libpod")[2].lstrip("-:")]  # libpod/container_internal_linux.go
    for mount in mounts if isinstance(mounts, list) else ():
        if isinstance(mount, dict) and mount.get("destination") == "/run/.containerenv":
            found.append(str(mount.get("source")).rpartition("/userdata/")[0].rpartition("/")[2])
    return next((each for each in found if len(each) == _ID and not each.strip(_HEX)), "")


def _runtimes(wanted: str, settings: "dict[str, Any]") -> "list[Runtime]":
    """Return the runtimes that may read the config: Podman does not say which it will be."""
    from shim.host.runtimes import about, find

    names = [wanted] if wanted else [*settings["runtimes"].values(), *_RUNTIMES]
    paths = dict.fromkeys(name if name.startswith("/") else find(name) for name in names)
    found = [about(path) for path in paths if path]
    if not found:
        raise ShimError("there is no runtime", subject=wanted or " or ".join(_RUNTIMES))
    return found
