"""Which system calls this kernel has: by its own symbols, and only if it hides them by its release.

A call that was left out of the configuration has a weak stand-in that answers ENOSYS
(kernel/sys_ni.c); /proc/kallsyms tells it by its letter. tracefs lists only calls that are there.
BTF names the stand-ins as well, and tells no letters.
"""

import functools
import os
import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

from shim.catalog import every
from shim.catalog.table import numbers, since
from shim.host.runtimes import numbers as parts

KALLSYMS = "/proc/kallsyms"
TRACEFS = ("/sys/kernel/tracing", "/sys/kernel/debug/tracing")
BTF = "/sys/kernel/btf/vmlinux"

# What uname calls the machines whose own calls these are.
_MACHINES = {"x86_64": "x86_64", "aarch64": "aarch64", "riscv64": "riscv64", "s390x": "s390x",
             "ppc64le": "ppc64"}  # fmt: skip
# What the entry points of an architecture are called (arch/*/include/asm/syscall_wrapper.h).
_PREFIXES = {"x86_64": "__x64_sys_", "aarch64": "__arm64_sys_", "riscv64": "__riscv_sys_",
             "s390x": "__s390x_sys_", "ppc64": "sys_"}  # fmt: skip
# Of an ABI beside a machine's own: the machine, and what symbols of its entry points hold.
_BESIDE = {
    "i386": ("x86_64", b" __ia32_sys_"),
    "x32": ("x86_64", b" __x64_compat_sys_"),
    "arm": ("aarch64", b" __arm64_compat_sys_"),
}
# Calls whose function has another name (arch/x86/entry/syscalls/syscall_64.tbl and its like).
_FUNCTIONS = {
    "stat": "newstat", "fstat": "newfstat", "lstat": "newlstat", "uname": "newuname",
    "umount2": "umount", "sendfile": "sendfile64", "fadvise64": "fadvise64_64",
}  # fmt: skip
# What BTF does not name: they take no arguments, and every kernel has them.
_WITHOUT_ARGUMENTS = frozenset(
    ("rt_sigreturn", "getppid", "getgid", "vhangup", "fork", "pause", "sched_yield", "getuid",
     "setsid", "geteuid", "vfork", "getpid", "getegid", "restart_syscall", "gettid", "getpgrp",
     "sync", "munlockall", "inotify_init")
)  # fmt: skip
# Numbers without an entry point, though the function is there for other programs (syscall_64.tbl).
_IDLE = {"x86_64": ("set_thread_area", "get_thread_area")}
# What kernels no longer have, since when; or that never was more than a number (empty).
_GONE = {
    "_sysctl": (5, 5), "lookup_dcookie": (6, 8), "create_module": (), "get_kernel_syms": (),
    "query_module": (), "nfsservctl": (3, 1), "epoll_ctl_old": (), "epoll_wait_old": (),
}  # fmt: skip
# The letters of weak symbols (nm).
_WEAK = "wWvV"
_ENOUGH = 200
_BTF_BYTES = 64 << 20


class Present(NamedTuple):
    """The ``names`` of the calls that the kernel has, and the ``source`` that told them.

    ``exempt`` are those that it lets pass every filter.
    """

    names: frozenset[str]
    source: str
    exempt: frozenset[str] = frozenset()


def present(arch: str, root: str = "") -> Present:
    """Return the calls that the kernel has; of another machine's ``arch``, by the release here."""
    listed = numbers()[arch].keys() - set(_IDLE.get(arch, ()))
    readers: tuple[tuple[str, Callable[[str, str], set[str]]], ...] = (
        (KALLSYMS, _of_kallsyms),
        *((f"{place}/events/syscalls", _of_tracefs) for place in TRACEFS),
        (BTF, _of_btf),
    )
    own = _MACHINES.get(os.uname().machine) == arch
    for path, read in readers if own else ():
        try:
            functions = read(root + path, _PREFIXES.get(arch, "sys_"))
        except OSError:
            continue
        found = frozenset(name for name in listed if not functions.isdisjoint(_entries(name)))
        if len(found) > _ENOUGH:
            return Present(found, path, _exempt())
    release = os.uname().release
    kernel = parts(release.partition("-")[0])[:2]
    found = frozenset(
        name
        for name in listed
        if () < since(every()[name])[:2] <= kernel and not _GONE.get(name, (99,)) <= kernel
    )
    why = "the kernel hides its symbols" if own else f"this machine is no {arch}"
    if _BESIDE.get(arch, ("",))[0] == os.uname().machine:
        why = "symbols tell of the machine's own calls"
    source = f"the catalogue, by the release {release} ({why})"
    return Present(found, source, _exempt() if own else frozenset())


def is_served(arch: str, path: str = KALLSYMS) -> bool | None:
    """Tell whether the kernel has the calls of an ABI beside its own; None: it cannot be told."""
    machine, symbols = _BESIDE.get(arch, ("", b""))
    if machine != os.uname().machine:
        return None
    try:
        found = _marks(path)
    except OSError:
        return None
    if _PREFIXES[_MACHINES[machine]].encode() not in found:
        return None  # the kernel hides its symbols
    return symbols in found


@functools.cache
def _marks(path: str) -> frozenset[bytes]:
    """Return what symbols tell of ABIs, of all of them: the kernel writes megabytes each time."""
    with open(path, "rb") as file:
        text = file.read()
    own = (prefix.encode() for prefix in _PREFIXES.values())
    return frozenset(
        mark for mark in (*own, *(each for _, each in _BESIDE.values())) if mark in text
    )


def _exempt() -> frozenset[str]:
    """Return the calls that this kernel's probe has found to pass every filter."""
    from shim.host.cache import states

    return frozenset(name for name, state in states().items() if state == "exempt")


def _entries(call: str) -> Iterable[str]:
    yield call
    if call in _FUNCTIONS:
        yield _FUNCTIONS[call]


def _of_kallsyms(path: str, prefix: str) -> set[str]:
    """Return the functions of calls that are no weak stand-ins."""
    with open(path, encoding="ascii", errors="replace") as file:
        lines = (line.split(None, 3) for line in file if prefix in line)
        return {
            words[2].removeprefix(prefix)
            for words in lines
            if words[2].startswith(prefix) and words[1] not in _WEAK
        }


def _of_tracefs(path: str, _prefix: str) -> set[str]:
    start = "sys_enter_"
    return {each.removeprefix(start) for each in os.listdir(path) if each.startswith(start)}


def _of_btf(path: str, prefix: str) -> set[str]:
    """Return the functions that the type information names: its strings end with a zero byte."""
    with open(path, "rb") as file:
        data = file.read(_BTF_BYTES)
    found = re.findall(rb"\0" + prefix.encode() + rb"(\w+)(?=\0)", data)
    return {each.decode() for each in found} | _WITHOUT_ARGUMENTS
