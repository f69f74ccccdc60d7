"""Change which program a stopped thread's filter-loading call takes, and nothing else about it.

No register is touched and no call is made in the thread's name. The longer program is laid into the
dead, lowest part of the thread's own [stack] mapping; then one 16-byte write turns the caller's
``struct sock_fprog`` to it. Before that write the thread would load the old program, after it the
new one: a tracer that dies in between leaves one or the other, never a container without a filter.
"""

from shim import lightos as os
from shim.errors import ShimError

# Room kept free between the program and any live frame: the 128-byte red zone of the x86-64 ABI
# and then some. Where the stack pointer is elsewhere (a Go routine's stack) the depth that the
# runtime may have used of the real stack is unknown: half of the kernel's 128 KiB is left to it.
_MARGIN = 4096
_MARGIN_ELSEWHERE = 64 * 1024


class Memory:
    """The memory of a stopped thread, through /proc/PID/mem."""

    __slots__ = ("fd", "pid")

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.fd = os.open(f"/proc/{pid}/mem", os.O_RDWR | os.O_CLOEXEC)

    def read(self, address: int, size: int) -> bytes:
        """Return exactly ``size`` bytes; ShimError if they are not all there."""
        try:
            data = os.pread(self.fd, size, address)
        except OSError as error:
            raise ShimError(f"cannot read {size} bytes at {address:#x}: {error.strerror}") from None
        if len(data) != size:
            raise ShimError(f"only {len(data)} of {size} bytes at {address:#x}")
        return data

    def write(self, address: int, data: bytes) -> None:
        """Write all of ``data``; ShimError if it does not go."""
        try:
            written = os.pwrite(self.fd, data, address)
        except OSError as error:
            raise ShimError(f"cannot write at {address:#x}: {error.strerror}") from None
        if written != len(data):
            raise ShimError(f"wrote only {written} of {len(data)} bytes at {address:#x}")

    def program(self, fprog: int) -> bytes:
        """Read the filter program that the ``struct sock_fprog`` at ``fprog`` names."""
        head = self.read(fprog, 16)
        length = int.from_bytes(head[:2], "little")
        return self.read(int.from_bytes(head[8:], "little"), length * 8)

    def dead_stack(self, size: int, stack_pointer: int) -> int:
        """Return the address of ``size`` unused writable bytes at the bottom of [stack]."""
        with open(f"/proc/{self.pid}/maps", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.endswith("[stack]\n"):
                    span, mode = line.split(" ", 2)[:2]
                    low, high = (int(end, 16) for end in span.split("-"))
                    break
            else:
                raise ShimError("the process has no [stack] mapping")
        inside = low <= stack_pointer < high
        limit = stack_pointer - _MARGIN if inside else high - _MARGIN_ELSEWHERE
        if not mode.startswith("rw") or low + size > limit:
            raise ShimError(f"no room for {size} bytes in the unused part of [stack]")
        return low


class Swap:
    """The caller's sock_fprog turned to another program, until ``undo``."""

    __slots__ = ("fprog", "head", "memory", "scratch", "taken")

    def __init__(self, memory: Memory, fprog: int, program: bytes, stack_pointer: int) -> None:
        self.memory = memory
        self.fprog = fprog
        self.scratch = memory.dead_stack(len(program), stack_pointer)
        self.taken = memory.read(self.scratch, len(program))
        self.head = memory.read(fprog, 16)
        memory.write(self.scratch, program)
        length = (len(program) // 8).to_bytes(2, "little")
        memory.write(fprog, length + self.head[2:8] + self.scratch.to_bytes(8, "little"))

    def undo(self) -> None:
        """Give the caller its own struct and stack bytes back."""
        self.memory.write(self.fprog, self.head)
        self.memory.write(self.scratch, self.taken)
