"""Odd profiles: small, each for one thing that a runtime does with a profile by itself."""

from typing import Any

ALLOW, ERRNO, LOG = "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_LOG"
TRACE, TRAP = "SCMP_ACT_TRACE", "SCMP_ACT_TRAP"
KILL, KILL_PROCESS = "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS"
X86_64, X86, X32 = "SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"
AARCH64, ARM = "SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"
ALL = [X86_64, X86, X32]
OLD = ["read", "write", "openat", "execve", "exit_group"]
Profile = dict[str, Any]


def rule(*names: str, action: str = ALLOW, **more: Any) -> dict[str, Any]:
    """Return one rule."""
    return {"names": list(names), "action": action, **more}


def arg(index: int, op: str, value: int, two: int = 0) -> dict[str, Any]:
    """Return one condition."""
    return {"index": index, "op": f"SCMP_CMP_{op}", "value": value, "valueTwo": two}


def profile(*rules: dict[str, Any], default: str = ERRNO, **more: Any) -> Profile:
    """Return a profile for all architectures of this machine."""
    return {"defaultAction": default, "architectures": ALL, "syscalls": list(rules), **more}


def _architectures() -> dict[str, Profile]:
    lists: dict[str, list[str] | None] = {
        "none": None,
        "empty": [],
        "native": [X86_64],
        "x86": [X86],
        "x32": [X32],
        "x86-x32": [X86, X32],
        "native-x32": [X86_64, X32],
        "native-x86": [X86_64, X86],
        "aarch64": [AARCH64],
        "arm-all": [AARCH64, ARM, *ALL],
        "twice": [X86_64, X86_64, X86, X86],
        "riscv64": ["SCMP_ARCH_RISCV64", X86_64],
        "mipsel": ["SCMP_ARCH_MIPSEL", "SCMP_ARCH_MIPSEL64", X86_64],
        "big-endian": ["SCMP_ARCH_S390X", X86_64],
        "parisc": ["SCMP_ARCH_PARISC", X86_64],
    }
    return {
        f"architectures {name}": profile(rule(*OLD, "statx", "shmget"), architectures=listed)
        for name, listed in lists.items()
    }


def _defaults() -> dict[str, Profile]:
    actions = (ALLOW, LOG, TRACE, TRAP, KILL, KILL_PROCESS, "SCMP_ACT_KILL_THREAD")
    found = {
        f"default {action[9:]}": profile(rule(*OLD, action=ERRNO), default=action)
        for action in actions
    }
    found |= {
        f"default ERRNO {errno}": profile(rule(*OLD), defaultErrnoRet=errno)
        for errno in (0, 38, 4095, 4096, 65535, 65536, 0x50026)
    }
    found["default TRACE 7"] = profile(rule(*OLD), default=TRACE, defaultErrnoRet=7)
    found["default KILL with errno"] = profile(rule(*OLD), default=KILL, defaultErrnoRet=7)
    found["default NOTIFY"] = profile(rule(*OLD), default="SCMP_ACT_NOTIFY")
    found["no default"] = profile(rule(*OLD), default="")
    found["switched off"] = profile(default="", architectures=None)
    found["nothing"] = {}
    return found


def _lines() -> dict[str, Profile]:
    names = {
        "read alone": ["read"],
        "nothing known": ["no_such_call", "nor_this_one"],
        "old": OLD,
        "old and statx": [*OLD, "statx"],
        "uretprobe": [*OLD, "uretprobe"],
        "uprobe": [*OLD, "uprobe", "uretprobe"],
        "clone3": [*OLD, "clone3"],
        "faccessat2": [*OLD, "faccessat2"],
        "futex_waitv": [*OLD, "futex_waitv"],
        "cachestat": [*OLD, "cachestat"],
        "map_shadow_stack": [*OLD, "map_shadow_stack"],
        "fchmodat2": [*OLD, "fchmodat2"],
        "mseal": [*OLD, "mseal"],
        "file_getattr": [*OLD, "file_getattr"],
        "i386 alone": ["_llseek", "time64", "clock_gettime64", "read"],
        "x32 numbers": ["rt_sigaction", "pwritev2", "read"],
        "ipc and sockets": [*OLD, "socket", "semget", "msgctl", "shmat", "socketcall", "ipc"],
        "other machines": [*OLD, "riscv_hwprobe", "s390_sthyi", "sync_file_range2", "cacheflush"],
        "2.6's own": [*OLD, "getpagesize", "atomic_barrier"],
        "twice": [*OLD, *OLD],
        "nothing": [],
        "empty": ["", *OLD],
    }
    found = {f"names {key}": profile(rule(*listed)) for key, listed in names.items()}
    found["names 40 of them"] = profile(rule(*_MANY))
    found["line by a denial"] = profile(rule(*OLD), rule("statx", action=ERRNO, errnoRet=13))
    found["line by the default's twin"] = profile(rule(*OLD), rule("statx", action=ERRNO))
    found["line by a condition"] = profile(
        rule(*OLD), rule("statx", args=[arg(0, "EQ", 1)]), rule("clone3", args=[arg(0, "NE", 2)])
    )
    found["ENOSYS by name"] = profile(rule(*OLD), rule("statx", "rseq", action=ERRNO, errnoRet=38))
    return found


def _rules() -> dict[str, Profile]:
    found = {
        f"op {op}": profile(rule(*OLD), rule("personality", args=[arg(0, op, 8, 1 << 33 | 8)]))
        for op in ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ")
    }
    big = [arg(place, "GE", 1 << 32 | place) for place in range(6)]
    found |= {
        "all arguments": profile(rule(*OLD), rule("mmap", args=big)),
        "one argument twice": profile(rule("clone", args=[arg(0, "EQ", 1), arg(0, "EQ", 2)])),
        "seven conditions": profile(rule("clone", args=[*big, arg(0, "EQ", 7)])),
        "no conditions": profile(rule(*OLD, args=None), rule("clone", args=[])),
        "allowed, then denied": profile(rule("statx"), rule("statx", action=ERRNO, errnoRet=5)),
        "denied, then allowed": profile(rule("statx", action=ERRNO, errnoRet=5), rule("statx")),
        "conditional, then always": profile(rule("statx", args=[arg(0, "EQ", 1)]), rule("statx")),
        "always, then conditional": profile(rule("statx"), rule("statx", args=[arg(0, "EQ", 1)])),
        "two answers by argument": profile(
            rule("ioctl", args=[arg(1, "EQ", 1)]),
            rule("ioctl", action=ERRNO, errnoRet=5, args=[arg(1, "EQ", 2)]),
        ),
        "late call by argument": profile(
            rule(*OLD), rule("fchmodat2", "mseal", args=[arg(1, "LE", 1 << 32)])
        ),
        "every action": profile(
            rule("read"), rule("write", action=LOG), rule("open", action=TRACE, errnoRet=9),
            rule("close", action=TRAP), rule("stat", action=KILL),
            rule("fork", action=KILL_PROCESS), rule("dup", action=ERRNO, errnoRet=70000),
        ),
        "errno beside allow": profile(rule(*OLD, errnoRet=5)),
        "notify": profile(rule(*OLD), rule("mount", action="SCMP_ACT_NOTIFY")),
        "notify write": profile(rule("write", action="SCMP_ACT_NOTIFY")),
        "KILL beside KILL_THREAD": profile(
            rule("read", action="SCMP_ACT_KILL_THREAD"), rule("write"), default=KILL
        ),
        "no rules": profile(),
        "null rules": {"defaultAction": ERRNO, "syscalls": None, "architectures": ALL},
        "allow all but one": profile(rule("uretprobe", "reboot", action=ERRNO), default=ALLOW),
    }  # fmt: skip
    return found


def _flags() -> dict[str, Profile]:
    lists: dict[str, list[str] | None] = {
        "null": None,
        "empty": [],
        "TSYNC": ["SECCOMP_FILTER_FLAG_TSYNC"],
        "LOG": ["SECCOMP_FILTER_FLAG_LOG"],
        "SPEC_ALLOW": ["SECCOMP_FILTER_FLAG_SPEC_ALLOW"],
        "LOG and SPEC_ALLOW": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"],
        "unknown": ["SECCOMP_FILTER_FLAG_NO_SUCH"],
    }
    return {f"flags {name}": profile(rule(*OLD), flags=flags) for name, flags in lists.items()}


_MANY = [
    "accept", "access", "alarm", "bind", "brk", "chdir", "chmod", "chown", "clone", "close",
    "connect", "dup", "dup2", "dup3", "epoll_create", "execve", "exit", "fchdir", "fchmod",
    "fchown", "fcntl", "fork", "fstat", "fsync", "futex", "getcwd", "getpid", "getuid", "ioctl",
    "kill", "link", "listen", "lseek", "lstat", "mkdir", "mmap", "mount", "mprotect", "munmap",
    "open", "pipe", "poll", "pread64", "statx",
]  # fmt: skip

PROFILES = {**_architectures(), **_defaults(), **_lines(), **_rules(), **_flags()}
