"""The keys of a profile as they are meant: Go, and so every engine, takes them in any case.

encoding/json prefers the exact key and else takes one that differs in case only; crun, which reads
a config.json by itself, does not. So this is for profiles that engines read.
"""

from shim.errors import ShimError

_KEYS = (
    *("defaultAction", "defaultErrnoRet", "defaultErrno", "architectures", "archMap"),
    *("architecture", "subArchitectures", "flags", "listenerPath", "listenerMetadata"),
    *("syscalls", "names", "name", "action", "errnoRet", "errno", "args", "comment"),
    *("includes", "excludes", "arches", "caps", "minKernel", "index", "value", "valueTwo", "op"),
)
_MEANT = {key.casefold(): key for key in _KEYS}


def meant(key: str) -> str:
    """Return the key of a profile that ``key`` is taken for; itself, if it is none."""
    return _MEANT.get(key.casefold(), key)


def spelled(tree: object, pointer: str = "") -> object:
    """Return ``tree`` with the keys of a profile spelled as they are meant.

    ShimError: an object has one of them twice, and which one counts depends on the reader.
    """
    if isinstance(tree, list):
        return [spelled(each, f"{pointer}/{index}") for index, each in enumerate(tree)]
    if not isinstance(tree, dict):
        return tree
    found: dict[object, object] = {}
    for key, value in tree.items():
        name = meant(key) if isinstance(key, str) else key
        if name in found:
            raise ShimError(f"has {name} twice, in different spellings", subject=pointer)
        found[name] = spelled(value, f"{pointer}/{name}")
    return found
