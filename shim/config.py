"""The admin's settings: /etc/seccomp-shim/config.yaml, and its compiled twin for the start path.

YAML is too slow to read for every container, so the settings are kept again as JSON beside the
YAML file, with the size, times, inode and device of the file they came from. The first container
after an edit compiles them anew, also where the file's old modification time was put back: nobody
sets the time of the last change (ctime). A file that anybody but its owner may write, or that
neither root nor this user owns, is not believed. Rootless containers have root's settings, but a
log of their user's own.

The runtime wrapper's shell part starts no interpreter to learn them: for it the same settings are
kept as plain lines, in a third file, behind those of the YAML file that count. A shell sees neither
a file's size nor its ctime without starting a process; but it can compare two texts.

Neither is ever written over a file whose content is not that of a compiled twin of ours.
"""

from shim import files
from shim import lightos as os
from shim.errors import ShimError
from shim.startjson import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

PATH = "/etc/seccomp-shim/config.yaml"
DEFAULTS: "dict[str, Any]" = {
    # What to do when an adjustment was called for and could not be made, or not be logged:
    # "allow" starts the container as it would have started without us, "deny" refuses to.
    "on_error": "allow",
    # Where every adjustment is logged.
    "log": "/var/log/seccomp-shim/audit.jsonl",
    # From how many bytes on the writer rotates it, and how many rotated ones stay, compressed.
    # None: it is never rotated by us.
    "log_max": [64 << 20, 4],
    # "brief" writes one line of a start that goes well, "full" one before the change, one after it,
    # and one of the look at the running container.
    "log_detail": "brief",
    # An exec that is adjusted like the one before it in the same container is written ("write"), or
    # counted and told once in an hour or in a thousand ("count").
    "log_repeats": "write",
    # The runtime wrapper's real runtimes by name, where PATH is not to decide: the first is used
    # where no name is asked for.
    "runtimes": {},
    # A call number that no kernel has, to be let through as well as the real calls: shows on any
    # kernel whether containers are adjusted. 0 is none.
    "test_syscall": 0,
}
_WORDS = {
    "on_error": ("allow", "deny"),
    "log_detail": ("brief", "full"),
    "log_repeats": ("write", "count"),
}
_UNITS = {"KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30}
# A log may be as short as a few lines are long, and no longer than a file system takes.
_BYTES, _KEPT = range(16 << 10, 1 << 40), range(1, 100)
_LIMIT = 1 << 20
_LIMIT_OF_LINES = 1 << 13
_NAME_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


def load(path: str = PATH) -> "tuple[dict[str, Any], str]":
    """Return the settings and, where they could not all be believed, one line that says why.

    With a broken YAML file the last good settings stay in force: an admin who asked for
    ``on_error: deny`` keeps it through a typing error.
    """
    settings, doubt = _load(path)
    if os.geteuid() == 0 == os.stat("/etc").st_uid:
        return settings, doubt  # this is root, and not one of a user namespace
    from shim.rootless import log, rootless

    if rootless() and not _own(path, settings):
        try:
            settings["log"] = log()
        except OSError as error:
            doubt = doubt or f"no log of the user's own: {error.strerror or error}"
    return settings, doubt


def _load(path: str) -> "tuple[dict[str, Any], str]":
    compiled = _read_compiled(_compiled_path(path))
    try:
        if compiled.get("source") == _identity(path, os.stat(path)):
            return {**DEFAULTS, **compiled["settings"]}, ""
        return compile_file(path), ""
    except FileNotFoundError:
        return dict(DEFAULTS), ""
    except (OSError, ShimError, ImportError, RecursionError) as error:
        used = "last good settings" if compiled else "defaults"
        return {**DEFAULTS, **compiled.get("settings", {})}, f"{error}; the {used} are used"


def check(path: str = PATH) -> "dict[str, Any]":
    """Read and check the YAML file, and write nothing; ShimError, OSError: what is wrong."""
    return {**DEFAULTS, **parse(_read(path, _LIMIT)[1], path)}


def compile_file(path: str = PATH) -> "dict[str, Any]":
    """Read and check the YAML file and keep it compiled beside itself; ShimError: what is wrong.

    Where the compiled files cannot be written the settings hold all the same.
    """
    source, text = _read(path, _LIMIT)
    settings = parse(text, path)
    try:  # noqa: SIM105 - contextlib is an import that every container would pay for
        _keep(path, source, text, settings)
    except (OSError, ShimError):
        pass  # a read-only /etc: every start then compiles for itself, slower but right
    return {**DEFAULTS, **settings}


def keep(path: str = PATH) -> None:
    """Compile the YAML file as ``compile_file`` does; ShimError, OSError: it cannot be kept."""
    source, text = _read(path, _LIMIT)
    _keep(path, source, text, parse(text, path))


def _keep(path: str, source: list[int], text: bytes, settings: "dict[str, Any]") -> None:
    from shim import atomic

    compiled, plain = _compiled_path(path), _lines_path(path)
    for twin, made_by_us in ((compiled, _is_compiled), (plain, _is_lines)):
        _refuse_foreign(twin, made_by_us)
    document = dumps({"source": source, "settings": settings})
    # Whatever the umask: rootless users have the same settings.
    atomic.write_atomic(compiled, document.encode(), 0o644)
    made = lines({**DEFAULTS, **settings})
    atomic.write_atomic(plain, b"%bsettings\n%b" % (_source(text, settings), made.encode()), 0o644)


def _refuse_foreign(twin: str, made_by_us: "Callable[[bytes], bool]") -> None:
    """Raise ShimError where a file stands that is not our compiled twin: it is never replaced."""
    try:
        known = made_by_us(files.read_regular(twin, _LIMIT, os.O_NOFOLLOW))
    except FileNotFoundError:
        return
    except OSError:
        known = False
    if not known:
        raise ShimError("is no file of ours and is not replaced", subject=twin)


def _is_compiled(text: bytes) -> bool:
    try:
        document = loads(text)
        return document.keys() == {"source", "settings"} and len(document["source"]) == 5
    except (ValueError, TypeError, AttributeError, RecursionError):
        return False


def _is_lines(text: bytes) -> bool:
    head, _, tail = (b"\n" + text).partition(b"\nsettings\n")
    return tail.startswith(b"on_error ") and all(
        line.startswith(b"yaml") for line in head.split(b"\n")[1:]
    )


def lines(settings: "dict[str, Any]") -> str:
    """Return ``settings`` as the wrapper's shell part reads them: a key and its value a line."""
    text = f"on_error {settings['on_error']}\ntest_syscall {settings['test_syscall']}\n"
    text += f"log {settings['log']}\n"
    return text + "".join(f"runtime {name} {path}\n" for name, path in settings["runtimes"].items())


def _source(text: bytes, settings: "dict[str, Any]") -> bytes:
    """Return the lines of the YAML file that count, as the shell part compares them.

    It passes over empty lines and comments, which take a shell long to read twice. So there must be
    none that count, as within quotes: a text to which they could be added with effect is left out,
    as is one that is long. Then what is made of it is taken for another text's.
    """
    source = [line for line in text.split(b"\n") if not _is_comment(line)]
    try:
        plain = parse(b"\n\n#\n".join([b"", *source, b""]), "") == settings
    except ShimError:
        plain = False
    if not plain or len(text) > _LIMIT_OF_LINES:
        return b"yaml\n"
    return b"".join(b"yaml %b\n" % line for line in source)


def _is_comment(line: bytes) -> bool:
    """Tell whether a line says nothing. One with more than ASCII may be two (YAML 1.1)."""
    return not line or (line.startswith(b"#") and all(32 <= letter < 127 for letter in line))


def parse(text: bytes, path: str) -> "dict[str, Any]":
    """Check the YAML ``text``; ShimError names the first thing wrong in it."""
    import yaml

    from shim import abi

    try:
        document = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        first = " ".join(str(error).split())
        raise ShimError(f"is not YAML: {first}", subject=path) from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ShimError("must be a mapping of settings", subject=path)
    for key, value in document.items():
        if key not in DEFAULTS:
            known = ", ".join(DEFAULTS)
            raise ShimError(f"unknown setting {key!r}", subject=path, hint=f"there are: {known}")
        if key == "log" and not (isinstance(value, str) and value.startswith("/")):
            raise ShimError(f"log: {value!r}", subject=path, hint="an absolute path")
        for setting, words in _WORDS.items():
            if key == setting and value not in words:
                raise ShimError(f"{key}: {value!r}", subject=path, hint=" or ".join(words))
        if key == "log_max":
            document[key] = _limit(value, path)
        if key == "runtimes":
            _check_runtimes(value, path)
        if key == "test_syscall" and (type(value) is not int or value not in abi.TEST_SYSCALLS):
            numbers = f"{abi.TEST_SYSCALLS.start} to {abi.TEST_SYSCALLS.stop - 1}"
            raise ShimError(
                f"test_syscall: {value!r}", subject=path, hint=f"a number from {numbers}"
            )
    return document


def _limit(value: object, path: str) -> "list[int] | None":
    """Return the bytes and the number of rotated logs of a text such as ``64 MB x 4``."""
    if value == "none":
        return None
    words = str(value).split()
    if len(words) == 4 and words[0].isdecimal() and words[1] in _UNITS and words[2] == "x":
        size = int(words[0]) * _UNITS[words[1]]
        kept = int(words[3]) if words[3].isdecimal() else 0
        if size in _BYTES and kept in _KEPT:
            return [size, kept]
    hint = "such as 64 MB x 4 (16 KB at least, 1 to 99 of them), or none"
    raise ShimError(f"log_max: {value!r}", subject=path, hint=hint)


def shown_limit(value: "list[int] | None") -> str:
    """Return a limit of the log as it is written in the settings."""
    if value is None:
        return "none"
    size, kept = value
    unit = max((unit for unit in _UNITS if size % _UNITS[unit] == 0), key=_UNITS.__getitem__)
    return f"{size // _UNITS[unit]} {unit} x {kept}"


def _check_runtimes(value: object, path: str) -> None:
    if not isinstance(value, dict):
        hint = "lines such as  runc: /usr/sbin/runc"
        raise ShimError("runtimes: must be a mapping of names to paths", subject=path, hint=hint)
    for name, real in value.items():
        if not isinstance(name, str) or not name or set(name) - _NAME_LETTERS:
            hint = "letters, digits and ._- only"
            raise ShimError(f"runtimes: the name {name!r}", subject=path, hint=hint)
        if not (isinstance(real, str) and real.startswith("/") and real.isprintable()):
            raise ShimError(f"runtimes: {name}: {real!r}", subject=path, hint="an absolute path")


def _compiled_path(path: str) -> str:
    return path.removesuffix(".yaml") + ".json"


def _lines_path(path: str) -> str:
    return path.removesuffix(".yaml") + ".lines"


def _read(path: str, limit: int) -> "tuple[list[int], bytes]":
    """Read a file of ours and tell which it is; ShimError, OSError: it is not to be believed."""
    fd = files.open_regular(path)
    try:
        identity = _identity(path, os.fstat(fd))
        text = files.read_up_to(fd, limit + 1)
    finally:
        os.close(fd)
    if len(text) > limit:
        raise ShimError(f"has more than {limit >> 10} KiB", subject=path)
    return identity, text


def _identity(path: str, info: os.stat_result) -> list[int]:
    """Tell this content of the file from any other; ShimError if others could have written it."""
    owners = {0, os.geteuid()}
    if path.startswith("/etc/"):  # rootless engines see root's files as nobody's
        owners.add(os.stat("/etc").st_uid)
    if info.st_uid not in owners or info.st_mode & 0o022:
        raise ShimError("may be written by others than its owner root", subject=path)
    return [info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_ino, info.st_dev]


def _own(path: str, settings: "dict[str, Any]") -> bool:
    """Tell whether these settings are the user's own and name a log."""
    if settings["log"] == DEFAULTS["log"]:
        return False
    try:
        return os.stat(path).st_uid == os.geteuid()
    except OSError:
        return False


def _read_compiled(path: str) -> "dict[str, Any]":
    try:
        document = loads(_read(path, _LIMIT)[1])
        if (
            isinstance(document["settings"], dict)
            and document["settings"].keys() <= DEFAULTS.keys()
        ):
            return document  # type: ignore[no-any-return]  # shape just checked
    except (OSError, ShimError, ValueError, KeyError, TypeError, AttributeError):
        pass
    return {}
