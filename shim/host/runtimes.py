"""What an OCI runtime's own libseccomp knows: it, not the host's, resolves a profile's names."""

from shim import lightos as os
from shim.host import cache
from shim.startjson import loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import NoReturn

_NAME = "runtimes.json"
_ANNOTATION = "io.github.seccomp.libseccomp.version"
_LIBRARY = "libseccomp.so."
_LOADER_CACHE = "/etc/ld.so.cache"
_DIRECTORIES = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SECONDS = 5
_LIMIT = 1 << 20


def libseccomp_version(runtime: str, directory: str = cache.DIRECTORY) -> "str | None":
    """Return the version of the libseccomp of ``runtime`` (a path or a name), None if unknown.

    A runtime is asked once per state of its binary and of the installed libraries, also if it has
    nothing to tell; one that gives no answer in time is asked again.
    """
    return about(runtime, directory).libseccomp


def about(runtime: str, directory: str = cache.DIRECTORY) -> "Runtime":
    """Tell what ``runtime`` (a path or a name) is; the rest as of ``libseccomp_version``."""
    path = runtime if os.path.isabs(runtime) else find(runtime)
    try:
        identity = [_identity(path), _identity(_LOADER_CACHE)]
    except OSError:
        return Runtime(path, [], "", None)
    cached = cache.read(_NAME, directory)
    if not isinstance(cached, dict):
        cached = {}
    known = cached.get(path)
    if isinstance(known, dict) and known.get("identity") == identity:
        program, version = known.get("program"), known.get("libseccomp")
        if isinstance(program, str) and (version is None or isinstance(version, str)):
            return Runtime(path, identity, program, version)
    try:
        program, version = _ask(path)
    except OSError:
        return Runtime(path, identity, "", None)
    entry = {"identity": identity, "program": program, "libseccomp": version}
    cache.write(_NAME, {**cached, path: entry}, directory)
    return Runtime(path, identity, program, version)


class Runtime:
    """One state of a runtime's binary and of the installed libraries.

    ``program`` is what it calls itself, such as ``crun 1.8.1``, empty if it does not tell;
    ``libseccomp`` is the version that it uses, None if unknown.
    """

    __slots__ = ("identity", "libseccomp", "path", "program")

    def __init__(
        self, path: str, identity: "list[list[int]]", program: str, libseccomp: "str | None"
    ) -> None:
        self.path = path
        self.identity = identity
        self.program = program
        self.libseccomp = libseccomp

    def is_at_least(self, program: str, version: str) -> bool:
        """Tell whether this is ``program`` (``runc``, ``crun``) of ``version`` or later."""
        name, _, own = self.program.partition(" ")
        return name == program and knows(own, version)


def find(name: str) -> str:
    """Return the path of a program on PATH or in the usual directories, empty if there is none."""
    if "/" not in name:
        for directory in f"{os.environ.get('PATH', '')}:{_DIRECTORIES}".split(":"):
            path = f"{directory}/{name}"
            if os.path.isabs(path) and os.path.isfile(path) and os.access(path, os.X_OK):
                return os.path.realpath(path)
    return ""


def knows(version: "str | None", since: str) -> bool:
    """Tell whether libseccomp ``version`` knows a name that came in ``since`` (empty: in none)."""
    if not version or not since:
        return False
    return numbers(version) >= numbers(since)


def numbers(version: str) -> "tuple[int, ...]":
    """Return the numbers of any version, whatever a distribution or git put behind them.

    Such as ``1.1.5+ds1``. A part that is no number counts as 0; an empty text has none.
    """
    for sign in "+-~":
        version = version.partition(sign)[0]
    parts = version.split(".") if version else []
    return tuple([int(part) if part.isdecimal() else 0 for part in parts])


def _identity(path: str) -> "list[int]":
    """Tell this content of a file from any other; ``[]`` is no loader cache (musl, static)."""
    try:
        info = os.stat(path)
    except FileNotFoundError:
        if path == _LOADER_CACHE:
            return []
        raise
    return [info.st_size, info.st_mtime_ns, info.st_ino]


def _ask(path: str) -> "tuple[str, str | None]":
    """Ask the runtime what it is, then the loader; OSError: they could not be asked."""
    features = printed(path, "features")
    text = printed(path, "--version")
    program = text.partition("\n")[0].split()  # "runc version 1.1.5+ds1"
    name = f"{program[0]} {program[2]}" if program[1:2] == ["version"] and program[2:] else ""
    return name, (
        _from_features(features)
        or _from_version(text)
        or _from_loader(printed(path, "--version", env={"LD_TRACE_LOADED_OBJECTS": "1"}))
    )


def _from_features(output: str) -> "str | None":
    """Read the OCI features document (runc 1.1.0, crun 1.8.6)."""
    if not output.startswith("{"):  # for what is no JSON, startjson imports the json package
        return None
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


def _from_loader(output: str) -> "str | None":
    """Read which library ld.so(8) would load; libtool puts its version into the file's name."""
    for line in output.splitlines():
        name, arrow, path = line.strip().partition(" => ")
        if arrow and name.startswith(_LIBRARY):
            file = os.path.basename(os.path.realpath(path.rpartition(" (")[0]))
            version = file.removeprefix(_LIBRARY)
            return version if version.count(".") == 2 else None
    return None


def printed(path: str, *arguments: str, env: "Mapping[str, str] | None" = None) -> str:
    """Return what a short-lived program prints; OSError: no end of it in time."""
    from shim.host.children import answer_of

    def execute(writer: int) -> None:
        _execute(path, arguments, os.environ if env is None else env, writer)

    return answer_of(execute, _SECONDS, _LIMIT).decode(errors="replace")


def _execute(
    path: str, arguments: "tuple[str, ...]", env: "Mapping[str, str]", writer: int
) -> "NoReturn":
    try:
        null = os.open("/dev/null", os.O_RDWR)
        for fd, source in ((0, null), (1, writer), (2, null)):
            os.dup2(source, fd)
        os.execve(path, (path, *arguments), env)
    finally:
        os._exit(127)
