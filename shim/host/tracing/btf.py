"""Where the kernel keeps what in its own structures: BTF (Documentation/bpf/btf.rst)."""

import struct
from collections.abc import Iterable

from shim.errors import ShimError

PATH = "/sys/kernel/btf/vmlinux"
_MAGIC = 0xEB9F
_HEADER = struct.Struct("=HBBIIIII")
_TYPE = struct.Struct("=III")
_MEMBER = struct.Struct("=III")
_STRUCT, _UNION = 4, 5
# What follows the twelve bytes of a type, by kind: so much, and so much for each member.
_MORE = {
    **dict.fromkeys((2, 7, 8, 9, 10, 11, 12, 16, 18), (0, 0)),
    1: (4, 0),
    3: (12, 0),
    _STRUCT: (0, 12),
    _UNION: (0, 12),
    6: (0, 8),
    13: (0, 8),
    14: (4, 0),
    15: (0, 12),
    17: (4, 0),
    19: (0, 12),
}


def offsets(wanted: Iterable[str], path: str = PATH) -> dict[str, int]:
    """Return the offset in bytes of each ``struct.member``, which may be of an unnamed part.

    ShimError: the kernel does not tell of its structures, or has no such member.
    """
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise ShimError(
            f"the kernel does not tell of its structures ({error.strerror})",
            subject=path,
            hint="it takes a kernel with BTF (CONFIG_DEBUG_INFO_BTF), as distributions build it",
        ) from error
    try:
        return _Types(data).offsets(wanted)
    except (struct.error, KeyError, ValueError, IndexError) as error:
        raise ShimError(
            f"what it has of the kernel's structures is not what is known here ({error})",
            subject=path,
        ) from error


class _Types:
    """The types of a BTF file: where each of them begins, by its number."""

    def __init__(self, data: bytes) -> None:
        magic, _, _, header, types, size, strings, length = _HEADER.unpack_from(data)
        if magic != _MAGIC:
            raise ValueError("no BTF of this machine")
        self._data = data
        self._text = data[header + strings : header + strings + length]
        self._places = [0]
        self._by_name: dict[int, int] = {}
        at = header + types
        end = at + size
        while at < end:
            name, info, _ = _TYPE.unpack_from(data, at)
            kind = info >> 24 & 0x1F
            if kind == _STRUCT and name:
                self._by_name.setdefault(name, len(self._places))
            self._places.append(at)
            more, each = _MORE[kind]
            at += _TYPE.size + more + each * (info & 0xFFFF)

    def offsets(self, wanted: Iterable[str]) -> dict[str, int]:
        """Return the offset of each ``struct.member``."""
        found = {}
        for each in wanted:
            structure, _, member = each.partition(".")
            at = self._text.index(f"\0{structure}\0".encode()) + 1
            offset = self._member(self._by_name[at], member.encode() + b"\0")
            if offset is None:
                raise ValueError(f"no {each}")
            found[each] = offset
        return found

    def _member(self, number: int, wanted: bytes) -> int | None:
        at = self._places[number]
        _, info, _ = _TYPE.unpack_from(self._data, at)
        for place in range(info & 0xFFFF):
            name, kind, offset = _MEMBER.unpack_from(
                self._data, at + _TYPE.size + place * _MEMBER.size
            )
            offset = offset & 0xFFFFFF if info >> 31 else offset  # else the upper bits are a size
            if self._text.startswith(wanted, name) and name:
                return int(offset) // 8
            if not name and self._kind(kind) in (_STRUCT, _UNION):
                inner = self._member(kind, wanted)
                if inner is not None:
                    return int(offset) // 8 + inner
        return None

    def _kind(self, number: int) -> int:
        return int(_TYPE.unpack_from(self._data, self._places[number])[1]) >> 24 & 0x1F
