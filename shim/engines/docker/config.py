"""Our entries in the text of Docker's daemon.json. Pure.

What dockerd takes and this refuses: duplicate keys, of which the last counts there, and keys of
ours in other letter case, which it reads in some places and not in others.
"""

import json
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any, NamedTuple

from shim.engines.docker.choose import RUNTIME
from shim.errors import ShimError
from shim.profile.jsontext import members, scanner

PROGRAM = "seccomp-shim-runtime"
_BOM = b"\xef\xbb\xbf"
_KEYS = ("runtimes", "default-runtime", "seccomp-profile")


class Config(NamedTuple):
    """daemon.json as it was read; ``mark`` is its byte order mark or nothing."""

    mark: bytes
    text: str
    tree: dict[str, Any]

    @property
    def runtimes(self) -> dict[str, Any]:
        """Return the registered runtimes."""
        return self.tree.get("runtimes", {})  # type: ignore[no-any-return]  # checked in read()

    @property
    def default(self) -> str:
        """Return the name of the default runtime, empty where none is set."""
        return self.tree.get("default-runtime", "")  # type: ignore[no-any-return]  # as above

    @property
    def profile(self) -> str:
        """Return the path of the default profile, empty where none is set."""
        return self.tree.get("seccomp-profile", "")  # type: ignore[no-any-return]  # as above


def read(data: bytes | None, where: str) -> Config:
    """Read daemon.json; none or an empty one has no settings. ShimError: what is wrong with it."""
    data = data or b""
    mark = _BOM if data.startswith(_BOM) else b""
    try:
        text = data.removeprefix(mark).decode()
    except UnicodeDecodeError:
        raise ShimError("is not valid UTF-8", subject=where) from None
    if not text.strip(" \t\r\n"):
        return Config(mark, text, {})
    try:
        tree = scanner.parse(text)
    except scanner.NotJSON as error:
        line = text.count("\n", 0, error.offset) + 1
        column = error.offset - text.rfind("\n", 0, error.offset)
        raise ShimError(f"not valid JSON: {error}", subject=f"{where}:{line}:{column}") from None
    if not isinstance(tree, dict):
        raise ShimError("is no JSON object", subject=where)
    for key in tree:
        if key.lower() in _KEYS and key not in _KEYS:
            raise ShimError(f"the key {key!a} must be in lower case", subject=where)
    for key, kind in zip(_KEYS, (dict, str, str), strict=True):
        if key in tree and not isinstance(tree[key], kind):
            what = "an object" if kind is dict else "a string"
            raise ShimError(f"{key} is not {what}", subject=where)
    for name, entry in tree.get("runtimes", {}).items():
        if not isinstance(entry, dict):
            raise ShimError(f"runtimes: {name!a} is not an object", subject=where)
    return Config(mark, text, tree)


def is_ours(entry: object) -> bool:
    """Tell whether a runtime's entry is one that we have written."""
    path = entry.get("path") if isinstance(entry, dict) else None
    return isinstance(path, str) and path.rpartition("/")[2] == PROGRAM


def fronted(config: Config) -> dict[str, dict[str, Any]]:
    """Return the runtimes of others that we stand in front of, as they were before us."""
    found = {name: formerly(entry) for name, entry in config.runtimes.items() if is_ours(entry)}
    return {name: entry for name, entry in found.items() if name != RUNTIME and entry}


def formerly(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return a runtime's entry as it was before we stood in front of it; empty: that is unknown."""
    args: list[str] = entry.get("runtimeArgs") or []
    if args[:1] != ["--real-runtime"] or len(args) < 2:
        return {}
    left = {key: value for key, value in entry.items() if key != "runtimeArgs"}
    return {**left, "path": args[1], **({"runtimeArgs": args[2:]} if args[2:] else {})}


def real_of(args: list[str]) -> str:
    """Return the real runtime that the wrapper's arguments name, empty if they name none."""
    return args[args.index("--real-runtime") + 1] if "--real-runtime" in args[:-1] else ""


def merged(
    config: Config,
    entry: dict[str, Any] | None,
    default: bool,
    profile: str,
    name: str = RUNTIME,
) -> bytes:
    """Return daemon.json with the runtime ``name``, as default or not, and ``profile`` if any."""
    wanted: list[tuple[tuple[str, ...], Any]] = []
    if profile and config.profile != profile:
        wanted.append((("seccomp-profile",), profile))
    if entry and default and config.default != RUNTIME:
        wanted.append((("default-runtime",), RUNTIME))
    if entry and "runtimes" not in config.tree:
        wanted.append((("runtimes",), {name: entry}))
    elif entry and config.runtimes.get(name) != entry:
        wanted.append((("runtimes", name), entry))
    if not wanted:
        return config.mark + config.text.encode()
    if not config.text.strip(" \t\r\n"):
        tree = {keys[0]: value for keys, value in reversed(wanted)}
        return config.mark + json.dumps(tree, indent=2).encode() + b"\n"
    tree = deepcopy(config.tree)
    text = config.text
    for keys, value in wanted:
        text = members.put(text, keys, value)
        around = tree if len(keys) == 1 else tree[keys[0]]
        around[keys[-1]] = value
    return _proven(config, text, tree)


def without(
    data: bytes, original: bytes | None, where: str, is_our_profile: Callable[[str], bool]
) -> bytes | None:
    """Return daemon.json without our entries; None: nothing is left, and we had made it.

    A default runtime or profile that was set before us, as ``original`` has it, is set again.
    """
    config = read(data, where)
    before = _original(original)
    tree = deepcopy(config.tree)
    text = config.text

    def set_back(key: str) -> None:
        nonlocal text
        lost = key == "default-runtime" and before.default in before.runtimes.keys() - tree.get(
            "runtimes", {}
        )
        if key in before.tree and not lost:
            tree[key] = before.tree[key]
            text = members.put(text, (key,), tree[key])
        else:
            del tree[key]
            text = members.drop(text, (key,))

    for name, entry in fronted(config).items():
        known = before.runtimes.get(name)
        tree["runtimes"][name] = entry if known is None or is_ours(known) else known
        text = members.put(text, ("runtimes", name), tree["runtimes"][name])
    if is_ours(config.runtimes.get(RUNTIME)):
        del tree["runtimes"][RUNTIME]
        text = members.drop(text, ("runtimes", RUNTIME))
        if not tree["runtimes"] and "runtimes" not in before.tree:
            set_back("runtimes")
    if config.default == RUNTIME and RUNTIME not in tree.get("runtimes", {}):
        set_back("default-runtime")
    if is_our_profile(config.profile):
        set_back("seccomp-profile")
    if text == config.text:
        return data
    if not tree and not before.tree:
        return original
    return _proven(config, text, tree)


def _original(data: bytes | None) -> Config:
    try:
        return read(data, "")
    except ShimError:  # it was readable when it was recorded; to be sure of what is there now
        return Config(b"", "", {})


def _proven(config: Config, text: str, tree: dict[str, Any]) -> bytes:
    """Return the bytes of ``text``, read back first: people's layouts have no end."""
    try:
        right = scanner.parse(text) == tree
    except scanner.NotJSON:
        right = False
    if not right:
        raise ShimError("daemon.json's layout could not be kept")
    return config.mark + text.encode()
