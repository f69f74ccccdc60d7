"""The C library, loaded once, and the one place where errno becomes an exception."""

from shim import lightos as os
from shim.host import lightctypes as ctypes

TYPE_CHECKING = False
if TYPE_CHECKING:
    _Buffer = ctypes.Array[ctypes.c_char]

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.argtypes = [ctypes.c_long] * 7
_syscall.restype = ctypes.c_long
_ptrace = _libc.ptrace
_ptrace.argtypes = [ctypes.c_long] * 4
_ptrace.restype = ctypes.c_long
_prctl = _libc.prctl
_prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
_prctl.restype = ctypes.c_int
_libc.setfsuid.argtypes = _libc.setfsgid.argtypes = [ctypes.c_uint]
_NO_ID = 0xFFFFFFFF
_ENOENT = 2


def _oserror(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{what}: {os.strerror(number)}")


def syscall(nr: int, *args: int) -> int:
    """Make system call ``nr``; OSError carries its errno."""
    ctypes.set_errno(0)
    result: int = _syscall(nr, *args, *(0,) * (6 - len(args)))
    if result == -1:
        raise _oserror(f"syscall {nr}")
    return result


def prctl(option: int, arg2: int = 0, arg3: int = 0, arg4: int = 0, arg5: int = 0) -> int:
    """Set or ask a property of this process (man 2 prctl); OSError carries its errno."""
    result: int = _prctl(option, arg2, arg3, arg4, arg5)
    if result == -1:
        raise _oserror(f"prctl {option}")
    return result


def filesystem_ids() -> "tuple[int, int]":
    """Return the user and group with whose rights this thread reaches files (man 2 setfsuid)."""
    return set_filesystem_ids(_NO_ID, _NO_ID)


def set_filesystem_ids(uid: int, gid: int) -> "tuple[int, int]":
    """Reach files with the rights of this user and group; return whose they are then.

    The calls themselves only tell what was before, whether or not they did something.
    """
    _libc.setfsgid(gid)
    _libc.setfsuid(uid)
    return _libc.setfsuid(_NO_ID) & _NO_ID, _libc.setfsgid(_NO_ID) & _NO_ID


def syncfs(fd: int) -> None:
    """Put all of the file system that ``fd`` is on onto its disk (man 2 syncfs, Linux 5.8)."""
    if _libc.syncfs(fd) == -1:
        raise _oserror("syncfs")


def ptrace(request: int, pid: int, addr: int = 0, data: int = 0) -> int:
    """Look at or steer thread ``pid`` (man 2 ptrace); OSError carries its errno."""
    result: int = _ptrace(request, pid, addr, data)
    if result == -1:  # for the requests used here never a value, as a PEEK's could be
        raise _oserror(f"ptrace {request:#x} of {pid}")
    return result


def filter_of(pid: int, index: int, at: int) -> int:
    """Write the filter ``index`` of thread ``pid`` to ``at``; return its length, -1: it has none.

    No exception for that: every look at a thread ends so, and the thread stands meanwhile.
    """
    from shim import abi

    length: int = _ptrace(abi.PTRACE_SECCOMP_GET_FILTER, pid, index, at)
    if length == -1 and ctypes.get_errno() != _ENOENT:
        raise _oserror(f"ptrace {abi.PTRACE_SECCOMP_GET_FILTER:#x} of {pid}")
    return length


def sock_fprog(program: bytes) -> "tuple[_Buffer, _Buffer]":
    """Lay out ``struct sock_fprog``; both parts must stay alive while the kernel reads them."""
    code = ctypes.create_string_buffer(program, len(program))
    head = (len(program) // 8).to_bytes(8, "little") + ctypes.addressof(code).to_bytes(8, "little")
    return ctypes.create_string_buffer(head, 16), code


def set_filter(program: bytes, flags: int = 0) -> int:
    """Install ``program`` on the calling thread: seccomp(SECCOMP_SET_MODE_FILTER)."""
    from shim import abi

    fprog, code = sock_fprog(program)
    result = syscall(abi.NR_SECCOMP, abi.SECCOMP_SET_MODE_FILTER, flags, ctypes.addressof(fprog))
    del code
    return result
