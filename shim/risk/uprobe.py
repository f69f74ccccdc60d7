"""A real uretprobe without any tool: perf_event_open(2) on the kernel's uprobe PMU.

The event is of one process alone: the kernel puts its breakpoint into no other's memory
(kernel/trace/trace_uprobe.c, uprobe_perf_filter).
"""

import ctypes
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from shim.errors import ShimError
from shim.host.libc import syscall

_NR_PERF_EVENT_OPEN = 298
_PMU = Path("/sys/bus/event_source/devices/uprobe")
_PERF_FLAG_FD_CLOEXEC = 8
_SHT_SYMTAB, _SHT_DYNSYM = 2, 11
_PT_LOAD = 1


class Uretprobe:
    """A uretprobe on the function at file ``offset`` of ``path``, in process ``pid`` alone."""

    def __init__(self, path: Path, offset: int, pid: int) -> None:
        try:
            kind = int((_PMU / "type").read_text())
            bit = int((_PMU / "format" / "retprobe").read_text().strip().removeprefix("config:"))
        except FileNotFoundError:
            raise ShimError("this kernel has no uprobes (CONFIG_UPROBE_EVENTS)") from None
        name = ctypes.create_string_buffer(os.fsencode(path))
        # struct perf_event_attr up to config2 (PERF_ATTR_SIZE_VER1): counting, enabled at once.
        fields = (kind, 72, 1 << bit, 0, 0, 0, 0, 0, 0, ctypes.addressof(name), offset)
        attr = ctypes.create_string_buffer(struct.pack("=IIQQQQQIIQQ", *fields), 72)
        at = ctypes.addressof(attr)
        self._fd = syscall(_NR_PERF_EVENT_OPEN, at, pid, -1, -1, _PERF_FLAG_FD_CLOEXEC)

    def hits(self) -> int:
        """Return the number of returns that the kernel's handler has seen."""
        (count,) = struct.unpack("=Q", os.read(self._fd, 8))
        return int(count)

    def close(self) -> None:
        """Take the probe off."""
        os.close(self._fd)


def function_offset(path: Path, name: str) -> int:
    """Return the file offset of function ``name`` of a 64-bit ELF file. LookupError: none."""
    elf = path.read_bytes()
    segments, sections = struct.unpack_from("<QQ", elf, 0x20)
    segment_size, segment_count, section_size, section_count = struct.unpack_from(
        "<HHHH", elf, 0x36
    )
    address = _symbol(elf, [sections + i * section_size for i in range(section_count)], name)
    for at in (segments + i * segment_size for i in range(segment_count)):
        kind, _, offset, start, _, size = struct.unpack_from("<IIQQQQ", elf, at)
        if kind == _PT_LOAD and start <= address < start + size:
            return int(address - start + offset)
    raise LookupError(f"{path}: {name} is in no loaded segment")


def _symbol(elf: bytes, sections: list[int], name: str) -> int:
    wanted = name.encode() + b"\0"
    for index, value, names in _symbols(elf, sections):
        if value and elf.startswith(wanted, names + index):
            return value
    raise LookupError(f"no symbol {name}")


def _symbols(elf: bytes, sections: list[int]) -> Iterator[tuple[int, int, int]]:
    """Yield of each symbol its name's index, its value, and where the names begin."""
    for at in sections:
        _, kind, _, _, offset, size, strings = struct.unpack_from("<IIQQQQI", elf, at)
        if kind in (_SHT_SYMTAB, _SHT_DYNSYM):
            (names,) = struct.unpack_from("<Q", elf, sections[strings] + 0x18)
            for entry in range(offset, offset + size, 24):
                index, _, _, _, value = struct.unpack_from("<IBBHQ", elf, entry)
                yield index, value, names
