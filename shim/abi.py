"""Kernel constants by their kernel names (include/uapi/linux: seccomp.h, audit.h, filter.h, ptrace.h).

Plain integers and nothing else: the container start path imports this module.
"""

# audit.h
AUDIT_ARCH_X86_64 = 0xC000003E
AUDIT_ARCH_I386 = 0x40000003
AUDIT_ARCH_AARCH64 = 0xC00000B7
AUDIT_ARCH_ARM = 0x40000028

# arch/x86/include/uapi/asm/unistd.h: x32 calls share AUDIT_ARCH_X86_64 and set this bit
X32_SYSCALL_BIT = 0x40000000

# seccomp.h
SECCOMP_MODE_FILTER = 2
SECCOMP_SET_MODE_FILTER = 1
SECCOMP_FILTER_FLAG_TSYNC = 1 << 0
SECCOMP_FILTER_FLAG_LOG = 1 << 1
SECCOMP_FILTER_FLAG_SPEC_ALLOW = 1 << 2
SECCOMP_FILTER_FLAG_NEW_LISTENER = 1 << 3
SECCOMP_FILTER_FLAG_TSYNC_ESRCH = 1 << 4
SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV = 1 << 5
SECCOMP_RET_KILL_PROCESS = 0x80000000
SECCOMP_RET_KILL_THREAD = 0x00000000
SECCOMP_RET_TRAP = 0x00030000
SECCOMP_RET_ERRNO = 0x00050000
SECCOMP_RET_USER_NOTIF = 0x7FC00000
SECCOMP_RET_TRACE = 0x7FF00000
SECCOMP_RET_LOG = 0x7FFC0000
SECCOMP_RET_ALLOW = 0x7FFF0000
SECCOMP_RET_ACTION_FULL = 0xFFFF0000
SECCOMP_RET_DATA = 0x0000FFFF

# struct seccomp_data: int nr; __u32 arch; __u64 instruction_pointer; __u64 args[6]
SECCOMP_DATA_NR = 0
SECCOMP_DATA_ARCH = 4
SECCOMP_DATA_SIZE = 64

# bpf_common.h
BPF_MAXINSNS = 4096

# prctl.h
PR_SET_DUMPABLE = 4
PR_SET_SECCOMP = 22
PR_SET_NO_NEW_PRIVS = 38

# x86-64 system call numbers (arch/x86/entry/syscalls/syscall_64.tbl)
NR_PRCTL = 157
NR_SECCOMP = 317

# Numbers 337-423 are unassigned on x86-64 for good (numbers are shared by all architectures from 424
# on): no kernel has code behind them. Denied by a profile they give EPERM, let through ENOSYS.
CANARIES = range(337, 424)
