"""What an OCI runtime's own libseccomp knows: it, not the host's, resolves a profile's names."""

import os

from shim.host import cache
from shim.startjson import loads

_NAME = "runtimes.json"
_ANNOTATION = "io.github.seccomp.libseccomp.version"
_SECONDS = 5


def libseccomp_version(runtime: str, directory: str = cache.DIRECTORY) -> "str | None":
    """Give the libseccomp version that the binary at path ``runtime`` reports, None if it does not.

    It is asked once per binary: path, size, time of change and inode tell whether it is the same.
    """
    try:
        info = os.stat(runtime)
    except OSError:
        return None
    if not os.path.isabs(runtime):
        return None
    identity = [info.st_size, info.st_mtime_ns, info.st_ino]
    kept = cache.read(_NAME, directory)
    if not isinstance(kept, dict):
        kept = {}
    known = kept.get(runtime)
    if isinstance(known, dict) and known.get("identity") == identity:
        version = known.get("libseccomp")
        return version if isinstance(version, str) else None
    version = _from_features(_run(runtime, "features")) or _from_version(_run(runtime, "--version"))
    cache.write(_NAME, {**kept, runtime: {"identity": identity, "libseccomp": version}}, directory)
    return version


def knows(version: "str | None", since: str) -> bool:
    """Tell whether libseccomp ``version`` knows a name that came in ``since`` (empty: in none)."""
    if not version or not since:
        return False
    return _numbers(version) >= _numbers(since)


def _numbers(version: str) -> "list[int]":
    parts = version.partition("-")[0].split(".")
    return [int(part) if part.isdigit() else 0 for part in parts]


def _from_features(output: str) -> "str | None":
    """Read the OCI features document (runc 1.1.0, crun 1.8.6)."""
    try:
        version = loads(output)["annotations"][_ANNOTATION]
    except (ValueError, KeyError, TypeError):
        return None
    return version if isinstance(version, str) else None


def _from_version(output: str) -> "str | None":
    """Read runc's own version text."""
    for line in output.splitlines():
        if line.startswith("libseccomp:"):
            return line.partition(":")[2].strip()
    return None


def _run(*argv: str) -> str:
    """Give what a short-lived program prints; nothing if it fails or takes too long."""
    import select

    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        _exec(argv, writer)
    os.close(writer)
    output, code = b"", 1
    try:
        while select.select([reader], [], [], _SECONDS)[0]:
            part = os.read(reader, 65536)
            if not part:
                code = os.waitpid(child, 0)[1]
                child = 0
                break
            output += part
    finally:
        os.close(reader)
        if child:
            os.kill(child, 9)
            os.waitpid(child, 0)
    return output.decode(errors="replace") if code == 0 else ""


def _exec(argv: "tuple[str, ...]", writer: int) -> None:
    try:
        null = os.open("/dev/null", os.O_RDWR)
        for fd, source in ((0, null), (1, writer), (2, null)):
            os.dup2(source, fd)
        os.execv(argv[0], argv)  # noqa: S606 - no shell is the point
    finally:
        os._exit(127)
