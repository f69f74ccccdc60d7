"""A container's config.json as it is read here: as every runtime reads it, or not at all.

runc decodes it with Go's encoding/json, which takes keys in any case and merges what a key says
twice; crun's C library takes keys to the letter, up to a NUL, and of two the first. Where these
could read something else than we do, what we would conclude is worth nothing: that is a doubt.
"""

import os

from shim import files
from shim.errors import ShimError
from shim.startjson import loads

LIMIT = 16 << 20
# The keys that we go by, where they are: each of them could be meant by one in another case.
_TOP = ("annotations", "hooks", "linux", "root")
_LINUX = ("namespaces", "seccomp")
_SECCOMP = (
    "architectures", "defaultAction", "defaultErrnoRet", "flags", "listenerMetadata",
    "listenerPath", "syscalls",
)  # fmt: skip
_RULE = ("action", "args", "errnoRet", "names")
_ARGUMENT = ("index", "op", "value", "valueTwo")
_HOOKS = (
    "createContainer", "createRuntime", "poststart", "poststop", "prestart", "startContainer",
)  # fmt: skip
_HOOK = ("args", "env", "path", "timeout")
_FOLDED: "dict[tuple[str, ...], set[str]]" = {
    known: {key.casefold() for key in known}
    for known in (_TOP, _LINUX, _SECCOMP, _RULE, _ARGUMENT, _HOOKS, _HOOK, ("path",))
}
# The text that was read last and what it says: one start asks several times.
_last: "tuple[str, dict[str, object]]" = ("", {})


def read_config(bundle: str) -> "dict[str, object]":
    """Read ``bundle``'s config.json; ShimError says why it cannot be believed."""
    path = os.path.join(bundle, "config.json")
    return parse_config(read_text(path), path)


def read_text(path: str) -> str:
    """Read the text of a config.json; ShimError says why that is none. FileNotFoundError is one."""
    try:
        return files.read_regular(path, LIMIT).decode()
    except UnicodeDecodeError:
        raise ShimError("is not UTF-8", subject=path) from None
    except OSError as error:
        raise ShimError(f"cannot read: {error.strerror}", subject=path) from None


def parse_config(text: str, path: str) -> "dict[str, object]":
    """Read the text of a config.json; ShimError says why it cannot be believed.

    The document is not to be changed.
    """
    global _last  # noqa: PLW0603 - a cache of one
    known, config = _last
    if text is known:
        return config
    try:
        config = loads(text, once=True)
    except ValueError as error:
        raise ShimError(f"is not JSON: {error}", subject=path) from None
    if not isinstance(config, dict):
        raise ShimError("is not an OCI config", subject=path)
    if "\\u0000" in text and "\\u0000" in text.replace("\\\\", ""):  # no escaped backslash's
        raise ShimError("has a NUL in it, where some runtimes stop reading", subject=path)
    _check_spelling(config, path)
    _last = text, config
    return config


def hooks_of(config: "dict[str, object]") -> "dict[str, list[dict[str, object]]]":
    """Return the hooks by stage; ShimError if they are not lists of objects."""
    hooks = config.get("hooks")
    if hooks is None:
        return {}
    if not isinstance(hooks, dict):
        raise ShimError("hooks is not an object", subject="config.json")
    found = {stage: hooks[stage] for stage in _HOOKS if hooks.get(stage) is not None}
    for stage, entries in found.items():
        if not isinstance(entries, list) or not all(isinstance(each, dict) for each in entries):
            raise ShimError(f"hooks/{stage} is no list of hooks", subject="config.json")
    return found


def _check_spelling(config: "dict[str, object]", path: str) -> None:
    """Raise ShimError where a key that we go by is there in another case as well, or instead."""
    _spelled(config, _TOP, path)
    linux = _spelled(config.get("linux"), _LINUX, path)
    seccomp = _spelled(linux.get("seccomp"), _SECCOMP, path)
    for rule in _listed(seccomp.get("syscalls")):
        for argument in _listed(_spelled(rule, _RULE, path).get("args")):
            _spelled(argument, _ARGUMENT, path)
    for stage in _spelled(config.get("hooks"), _HOOKS, path).values():
        for entry in _listed(stage):
            _spelled(entry, _HOOK, path)
    _spelled(config.get("root"), ("path",), path)


def _spelled(value: object, known: "tuple[str, ...]", path: str) -> "dict[str, object]":
    """Return ``value`` if it is an object, else an empty one; ShimError as of _check_spelling."""
    if not isinstance(value, dict):
        return {}
    for key in value:
        # Go folds as Unicode does: a long s and the sign for kelvin are letters, too.
        if key not in known and key.casefold() in _FOLDED[known]:
            raise ShimError(f"has {key!r}, which some runtimes take for another key", subject=path)
    return value


def _listed(value: object) -> "list[object]":
    return value if isinstance(value, list) else []
