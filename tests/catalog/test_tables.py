"""The catalogue's numbers against the kernel headers and libseccomp of three Debian suites."""

import ctypes
import re
from functools import cache
from pathlib import Path

import pyseccomp
import pytest

from shim import catalog
from shim.catalog.table import ARCHITECTURES, OFFSETS, numbers, since
from shim.profile.libseccomp import KEYS
from support import need
from support.packages import unpacked
from vm import debian

SUITES = ("here", "trixie", "sid")
HEADERS = {
    "x86_64": "x86/asm/unistd_64.h",
    "i386": "x86/asm/unistd_32.h",
    "x32": "x86/asm/unistd_x32.h",
    "aarch64": "arm64/asm/unistd_64.h",
    "arm": "arm/asm/unistd-eabi.h",
    "loongarch64": "loongarch/asm/unistd_64.h",
    "m68k": "m68k/asm/unistd_32.h",
    "mips": "mips/asm/unistd_o32.h",
    "mips64": "mips/asm/unistd_n64.h",
    "mips64n32": "mips/asm/unistd_n32.h",
    "parisc": "parisc/asm/unistd_32.h",
    "parisc64": "parisc/asm/unistd_64.h",
    "ppc": "powerpc/asm/unistd_32.h",
    "ppc64": "powerpc/asm/unistd_64.h",
    "riscv64": "riscv/asm/unistd_64.h",
    "s390": "s390/asm/unistd_32.h",
    "s390x": "s390/asm/unistd_64.h",
    "sh": "sh/asm/unistd_32.h",
}
# A package for one architecture has its headers elsewhere, and Linux 7 has no 32-bit s390.
MISSING = {*(("here", key) for key in HEADERS), ("sid", "s390")} - {
    ("here", key) for key in ("x86_64", "i386", "x32")
}
# Numbers that the kernel's own tables keep free, by name.
PLACEHOLDER = re.compile(r"(unused|reserved)\d+")
# Calls of arm beyond the table, in another header (__ARM_NR_).
ARM_ONLY = {"breakpoint", "cacheflush", "usr26", "usr32", "set_tls", "get_tls"}
BY_WAY_OF_ANOTHER = range(-224, -100)  # include/seccomp-syscalls.h: socketcall, ipc
# What an architecture got later than others, and when.
LATER = {("loongarch64", "memfd_secret"): (7, 2)}
# What releases of libseccomp have otherwise: Debian 12's took the names of Linux 6.7 without one
# number (2.5.6 has it), and until 2.6.1 there was one on parisc64 that its kernel has not.
OTHERWISE = {("x32", "map_shadow_stack"), ("parisc64", "_llseek")}


def _headers(suite: str) -> tuple[Path, tuple[int, ...]]:
    """Return where a suite's headers are, and the kernel that they are of."""
    if suite == "here":
        text = Path("/usr/include/linux/version.h").read_text()
        code = int(re.findall(r"LINUX_VERSION_CODE (\d+)", text)[0])
        return Path("/usr/include/x86_64-linux-gnu"), (code >> 16, code >> 8 & 0xFF)
    root = unpacked(suite, "linux-libc-dev")
    version = debian.versions(suite, ("linux-libc-dev",))["linux-libc-dev"]
    return root / "usr/lib/linux/uapi", tuple(map(int, version.split(".")[:2]))


@pytest.mark.parametrize("suite", SUITES)
def test_numbers_are_those_of_the_kernel_headers(suite: str) -> None:
    """No header has a call that we lack; we have no other but of later kernels."""
    folder, kernel = _headers(suite)
    wrong = {}
    for key, header in HEADERS.items():
        if (suite, key) in MISSING:
            continue
        path = folder / (header.partition("/")[2] if suite == "here" else header)
        found = re.findall(r"#define __NR_(\w+)\s+\(?(?:\w+ \+ )?(\d+)\)?", path.read_text())
        defined = {name: int(nr) for name, nr in found if not PLACEHOLDER.fullmatch(name)}
        assert len(defined) > 300
        ours = {
            name: number
            for name, number in numbers()[key].items()
            if name in defined
            or max(since(catalog.every()[name]), LATER.get((key, name), ())) <= kernel
        }
        if key == "arm":
            ours = {name: number for name, number in ours.items() if name not in ARM_ONLY}
        if ours != defined:
            wrong[key] = dict(ours.items() ^ defined.items())
    assert wrong == {}


@cache
def _library(suite: str) -> ctypes.CDLL:
    folder = Path("/") if suite == "here" else unpacked(suite, "libseccomp2")
    library = ctypes.CDLL(str(folder / "usr/lib/x86_64-linux-gnu/libseccomp.so.2"))
    library.seccomp_syscall_resolve_name_arch.argtypes = [ctypes.c_uint32, ctypes.c_char_p]
    return library


def _release(suite: str) -> tuple[int, ...]:
    """Return the release whose names the library has: Debian 12's are those of 2.5.5."""
    need.kernel(suite != "here" or _is_debian_12(), "the libseccomp here is not Debian 12's")
    if suite == "here":
        return 2, 5, 5
    version = debian.versions(suite, ("libseccomp2",))["libseccomp2"]
    return tuple(map(int, re.findall(r"\d+", version)[:3]))


def _is_debian_12() -> bool:
    return 'VERSION_ID="12"' in Path("/etc/os-release").read_text()


@pytest.mark.parametrize("suite", SUITES)
def test_numbers_and_releases_are_those_of_libseccomp(suite: str) -> None:
    """The library resolves each name to our number or, by its release, knows none of it."""
    library, release = _library(suite), _release(suite)
    names = {getattr(pyseccomp.Arch, name): name for name in ARCHITECTURES if name in _here()}
    wrong = {}
    for token, key in KEYS.items():
        for name, call in catalog.every().items():
            found = library.seccomp_syscall_resolve_name_arch(token, name.encode())
            known = found != -1
            if known != (tuple(map(int, call.libseccomp.split("."))) <= release):
                wrong[name] = f"known: {known}"
            number = call.numbers.get(key)
            if not known or number is None:
                right = found < 0
            else:
                right = found == number + OFFSETS.get(key, 0) or found in BY_WAY_OF_ANOTHER
            if not right and (key, name) not in OTHERWISE:
                wrong[f"{names[token]} {name}"] = f"{found}, ours {number}"
    assert wrong == {}


def _here() -> list[str]:
    return dir(pyseccomp.Arch)


def test_glibc_is_called_first_where_it_has_the_function() -> None:
    """The release of glibc that is told of a call is the version of its symbol in the libc here."""
    text = need.output("readelf", "-W", "--dyn-syms", "/lib/x86_64-linux-gnu/libc.so.6")
    symbols = dict(re.findall(r" (\w+)@@GLIBC_([\d.]+)", text))
    told = {
        name: re.match(r"glibc ([\d.]+)(?=;|$)", call.users)
        for name, call in catalog.every().items()
    }
    compared = {name: found[1] for name, found in told.items() if found and name in symbols}
    assert compared.keys() >= {"statx", "pidfd_open", "preadv2", "memfd_create"}
    assert compared == {name: symbols[name] for name in compared}
