"""The types of a profile: every key that a runtime reads holds what the runtime wants there.

A check is a function of a value and its JSON pointer; it raises ShimError with the pointer as its
subject. Keys that nobody here knows are nobody's business. null is taken for absent, as Go does.
"""

from collections.abc import Callable, Collection

from shim.errors import ShimError
from shim.profile.evaluate import ACTIONS

Check = Callable[[object, str], None]

# runtime-spec config-linux.md and libseccomp's include/seccomp.h.in
_MIPS = ("MIPS", "MIPS64", "MIPS64N32", "MIPSEL", "MIPSEL64", "MIPSEL64N32")
_IBM = ("PPC", "PPC64", "PPC64LE", "S390", "S390X")
_OTHERS = ("PARISC", "PARISC64", "RISCV64", "LOONGARCH64", "M68K", "SH", "SHEB")
_NAMES = ("X86", "X86_64", "X32", "ARM", "AARCH64", *_MIPS, *_IBM, *_OTHERS)
ARCHITECTURES = tuple(f"SCMP_ARCH_{name}" for name in _NAMES)
OPERATORS = tuple(f"SCMP_CMP_{name}" for name in ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"))


def text(value: object, pointer: str) -> None:
    """Refuse what is no string."""
    if not isinstance(value, str):
        raise ShimError("must be a string", subject=pointer)


def kernel(value: object, pointer: str) -> None:
    """Refuse what Docker cannot read as a kernel version: it takes two numbers, no more."""
    parts = value.split(".") if isinstance(value, str) else []
    if len(parts) != 2 or not all(p.isascii() and p.isdigit() and int(p) < 256 for p in parts):
        raise ShimError('must be a kernel version such as "4.8"', subject=pointer)


def number(highest: int) -> Check:
    """Refuse what is no whole number from 0 to ``highest``."""

    def check(value: object, pointer: str) -> None:
        # bool is a kind of int in Python, not in JSON
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= highest:
            raise ShimError(f"must be a whole number from 0 to {highest}", subject=pointer)

    return check


def one_of(known: Collection[str], what: str) -> Check:
    """Refuse a string that is not among ``known``."""

    def check(value: object, pointer: str) -> None:
        text(value, pointer)
        if value not in known:
            raise ShimError(f"unknown {what} {value}", subject=pointer)

    return check


def each(check_one: Check) -> Check:
    """Refuse what is no list of what ``check_one`` lets pass."""

    def check(value: object, pointer: str) -> None:
        if not isinstance(value, list):
            raise ShimError("must be a list", subject=pointer)
        for index, element in enumerate(value):
            check_one(element, f"{pointer}/{index}")

    return check


def members(checks: dict[str, Check], required: Collection[str] = ()) -> Check:
    """Refuse what is no object, or whose known keys do not hold what ``checks`` let pass."""
    spelling = {key.casefold(): key for key in checks}

    def check(value: object, pointer: str) -> None:
        if not isinstance(value, dict):
            raise ShimError("must be an object", subject=pointer)
        for key in value:
            if not isinstance(key, str):  # YAML has other keys, too: on: is a truth value there
                raise ShimError(
                    f"the key {key!a} must be a string", subject=pointer, hint="quote it"
                )
            known = spelling.get(key.casefold(), key)
            if key != known:
                # Go's encoding/json ignores the case of keys, the C runtimes do not: the same file
                # would mean different things to runc and to crun.
                raise ShimError(f"must be spelled {known}", subject=f"{pointer}/{key}")
            if key in checks and value[key] is not None:
                checks[key](value[key], f"{pointer}/{key}")
        for key in required:
            if value.get(key) is None:
                raise ShimError(f"lacks {key}", subject=pointer)

    return check


_ACTION = one_of(ACTIONS, "action")
_ARCHITECTURE = one_of(ARCHITECTURES, "architecture")
_ERRNO = number(2**32 - 1)
_ARGUMENT = members(
    {
        "index": number(5),
        "value": number(2**64 - 1),
        "valueTwo": number(2**64 - 1),
        "op": one_of(OPERATORS, "operator"),
    },
    required=("op",),
)
_CONDITIONS = members({"arches": each(text), "caps": each(text), "minKernel": kernel})
_RULE: dict[str, Check] = {
    "names": each(text),
    "action": _ACTION,
    "errnoRet": _ERRNO,
    "args": each(_ARGUMENT),
}
_PROFILE: dict[str, Check] = {
    "defaultAction": one_of((*ACTIONS, ""), "action"),  # empty: switched off
    "defaultErrnoRet": _ERRNO,
    "architectures": each(_ARCHITECTURE),
    "flags": each(text),
    "listenerPath": text,
    "listenerMetadata": text,
}

_DOCKER_RULE = members(
    {**_RULE, "name": text, "comment": text, "includes": _CONDITIONS, "excludes": _CONDITIONS},
    required=("action",),
)


def _docker_rule(value: object, pointer: str) -> None:
    """Refuse what is no rule of Docker's format, whether or not it applies here."""
    _DOCKER_RULE(value, pointer)
    if isinstance(value, dict) and value.get("name") and value.get("names"):
        raise ShimError("has both name and names, which Docker refuses", subject=f"{pointer}/name")


oci = members({**_PROFILE, "syscalls": each(members(_RULE, required=("action",)))})
docker = members(
    {
        **_PROFILE,
        "archMap": each(
            members(
                {"architecture": _ARCHITECTURE, "subArchitectures": each(_ARCHITECTURE)},
                required=("architecture",),
            )
        ),
        "syscalls": each(_docker_rule),
    }
)
config = members({"linux": members({"seccomp": oci})})
resource = members({"spec": oci}, required=("spec",))
