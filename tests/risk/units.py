"""Processes where systemd has its units, under filters as it installs them."""

import os
import signal
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pyseccomp

from risk.processes import started
from shim.catalog.table import ARCHITECTURES, numbers
from support import need

# As its seccomp_local_archs has them on x86-64 (src/shared/seccomp-util.c).
_ARCHITECTURES = ("X86_64", "X86", "X32")


@cache
def as_systemd(*refused: str, errno: int = 1) -> tuple[bytes, ...]:
    """Return the filters of a SystemCallFilter= that lists all that libseccomp knows but these.

    systemd makes one for each architecture, which lets those of others pass
    (seccomp_init_for_arch); the newest is first.
    """
    programs: list[bytes] = []
    for name in _ARCHITECTURES:
        arch = getattr(pyseccomp.Arch, name)
        made = pyseccomp.SyscallFilter(pyseccomp.ERRNO(errno))
        if arch != pyseccomp.system_arch():
            made.add_arch(arch)
            made.remove_arch(pyseccomp.system_arch())
        made.set_attr(pyseccomp.Attr.ACT_BADARCH, pyseccomp.ALLOW)
        made.set_attr(pyseccomp.Attr.CTL_NNP, 0)
        for call in numbers()[ARCHITECTURES[name]]:
            # libseccomp answers -1 for what it does not know, and other negative numbers for what
            # the architecture lacks.
            if call not in refused and pyseccomp.resolve_syscall(arch, call) >= 0:
                made.add_rule_exactly(pyseccomp.ALLOW, call)
        with open(os.memfd_create("filter"), "w+b") as file:
            made.export_bpf(file)
            file.seek(0)
            programs.insert(0, file.read())
    return tuple(programs)


@contextmanager
def unit(
    name: str,
    *each: Collection[bytes],
    slice_: str = "system.slice",
    then: Callable[[], object] = signal.pause,
) -> Iterator[list[int]]:
    """Have a unit with a process for each of these stacks of filters, the newest first of one."""
    need.root()
    mounts = [line.split() for line in Path("/proc/mounts").read_text().split("\n") if line]
    tops = [each[1] for each in mounts if each[2] == "cgroup2" or "name=systemd" in each[3]]
    need.kernel(bool(tops), "no hierarchy of cgroups is mounted")
    path = Path(tops[0], slice_, name)
    made = [each for each in (path, *path.parents) if not each.exists()]
    path.mkdir(parents=True)
    pids: list[int] = []

    def enter() -> None:
        (path / "cgroup.procs").write_text(str(os.getpid()))

    try:
        for programs in each:
            pids.append(started(reversed(list(programs)), then, enter))
            time.sleep(1.1 / os.sysconf("SC_CLK_TCK"))  # so that their starts tell their order
        yield pids
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        for folder in made:
            folder.rmdir()
