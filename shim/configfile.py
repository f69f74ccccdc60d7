"""The admin's settings file checked, and compiled for the start path beside itself.

The runtime wrapper's shell part starts no interpreter to learn them: for it the same settings are
kept as plain lines, in a third file, behind those of the YAML file that count. A shell sees neither
a file's size nor its ctime without starting a process; but it can compare two texts.

Neither is ever written over a file whose content is not that of a compiled twin of ours.
"""

from shim import abi, atomic, config, files
from shim import lightos as os
from shim.errors import ShimError
from shim.startjson import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_WORDS = {
    "on_error": ("allow", "deny"),
    "log_detail": ("brief", "full"),
    "log_repeats": ("write", "count"),
    "unknown_calls": ("default", "enosys"),
}
_UNITS = {"KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30}
# A log may be as short as a few lines are long, and no longer than a file system takes.
_BYTES, _KEPT = range(16 << 10, 1 << 40), range(1, 100)
_LIMIT_OF_LINES = 1 << 13
_NAME_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


def check(path: str = config.PATH) -> "dict[str, Any]":
    """Read and check the YAML file, and write nothing; ShimError, OSError: what is wrong."""
    return {**config.DEFAULTS, **parse(config.read(path)[1], path)}


def compile_file(path: str = config.PATH) -> "dict[str, Any]":
    """Read and check the YAML file and keep it compiled beside itself; ShimError: what is wrong.

    Where the compiled files cannot be written the settings hold all the same.
    """
    source, text = config.read(path)
    settings = parse(text, path)
    try:  # noqa: SIM105 - contextlib is an import that every container would pay for
        _keep(path, source, text, settings)
    except (OSError, ShimError):
        pass  # a read-only /etc: every start then compiles for itself, slower but right
    return {**config.DEFAULTS, **settings}


def keep(path: str = config.PATH) -> None:
    """Compile the YAML file as ``compile_file`` does; ShimError, OSError: it cannot be kept."""
    source, text = config.read(path)
    _keep(path, source, text, parse(text, path))


def _keep(path: str, source: list[int], text: bytes, settings: "dict[str, Any]") -> None:
    compiled, plain = config.compiled_path(path), _lines_path(path)
    for twin, made_by_us in ((compiled, _is_compiled), (plain, _is_lines)):
        _refuse_foreign(twin, made_by_us)
    document = dumps({"source": source, "settings": settings})
    # Whatever the umask: rootless users have the same settings.
    atomic.write_atomic(compiled, document.encode(), 0o644)
    made = lines({**config.DEFAULTS, **settings})
    atomic.write_atomic(plain, b"%bsettings\n%b" % (_source(text, settings), made.encode()), 0o644)


def _refuse_foreign(twin: str, made_by_us: "Callable[[bytes], bool]") -> None:
    """Raise ShimError where a file stands that is not our compiled twin: it is never replaced."""
    try:
        known = made_by_us(files.read_regular(twin, config.LIMIT, os.O_NOFOLLOW))
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
    if settings["unknown_calls"] != "default":
        text += f"unknown_calls {settings['unknown_calls']}\n"
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
        if key not in config.DEFAULTS:
            known = ", ".join(config.DEFAULTS)
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


def _lines_path(path: str) -> str:
    return path.removesuffix(".yaml") + ".lines"
