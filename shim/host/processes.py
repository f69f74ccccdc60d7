"""What /proc tells of processes: by number, or of one that is meant and no other.

A number is given to the next process as soon as its owner has been waited for; what is reached by
an open directory of /proc is that process or nothing (ESRCH), and pidfd_send_signal(2) takes such a
directory for a pidfd. It has to be opened while somebody is sure to keep the process from being
reaped: a runtime whose hook we are, a tracer, a parent.

The container start path imports this module. ``proc`` is another root's /proc, as a node's. OSError
of a function that takes a number: the process is gone, or not ours to look at.
"""

from shim import lightos as os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# So that the hook of a second stage, and whoever looks, knows a tracer of ours.
TRACER = "shim-"
# Of the fields behind the name, which may itself hold spaces: proc(5), stat.
_THREADS, _STARTED = 17, 19


def pids(proc: str = "/proc") -> "Iterator[int]":
    """Return the numbers of all processes; none where there is no /proc."""
    try:
        names = os.listdir(proc)
    except FileNotFoundError:
        return
    for name in names:
        if name.isdigit():
            yield int(name)


def name(pid: int, proc: str = "/proc") -> str:
    """Return the name that process ``pid`` goes by, 15 characters at most."""
    return _read(f"{proc}/{pid}/comm").decode(errors="replace").strip()


def command_line(pid: int, proc: str = "/proc") -> "list[str]":
    """Return the words that ``pid`` was started with, and one empty one behind them."""
    return _read(f"{proc}/{pid}/cmdline").decode(errors="replace").split("\0")


def environment(pid: int) -> "list[bytes]":
    """Return the variables that ``pid`` was started with, each with its value."""
    return _read(f"/proc/{pid}/environ").split(b"\0")


def started(pid: int, proc: str = "/proc") -> str:
    """Return when ``pid`` started, which tells it from a later process of the same number."""
    return stat_of(_read(f"{proc}/{pid}/stat").decode(errors="replace"))[2]


def stat_of(stat: str) -> "tuple[str, int, str]":
    """Return a process's state, how many threads it has, and when it started.

    ``stat`` is the text of its /proc/PID/stat.
    """
    fields = stat.rpartition(")")[2].split()
    return fields[0], int(fields[_THREADS]), fields[_STARTED]


def cgroup(pid: int) -> str:
    """Return the text of /proc/PID/cgroup."""
    return _read(f"/proc/{pid}/cgroup").decode(errors="replace")


def parent(pid: int) -> int:
    """Return the number of the process that ``pid`` is a child of."""
    return int(_read(f"/proc/{pid}/stat").rpartition(b")")[2].split()[1])


def code_mappings(pid: int) -> "list[str]":
    """Return paths by which root reaches the files whose code ``pid`` maps, each file once.

    Device and inode alone do not tell a file: all subvolumes of a btrfs have one device there.
    """
    found: dict[tuple[bytes, bytes, bytes], str] = {}
    try:
        for line in _read(f"/proc/{pid}/maps").split(b"\n"):  # a name may hold what else ends lines
            area, rights, _, device, inode, *name = line.split(None, 5) if line else [b""] * 5
            if b"x" in rights and inode != b"0":
                begin, _, end = area.partition(b"-")
                link = f"/proc/{pid}/map_files/{int(begin, 16):x}-{int(end, 16):x}"
                found.setdefault((device, inode, b"".join(name)), link)
    except (OSError, ValueError):
        return []
    return list(found.values())


def link(pid: int, name: str) -> str:
    """Return where a link of ``pid`` leads: ``exe`` to its program, ``cwd`` to its directory."""
    return os.readlink(f"/proc/{pid}/{name}")


def namespace(pid: "int | str", kind: str) -> int:
    """Return the number of a namespace of ``pid``, of ``self`` our own: ``mnt``, ``pid``, ..."""
    return os.stat(f"/proc/{pid}/ns/{kind}").st_ino


def status_of(pid: "int | str", keys: "Iterable[str]") -> "dict[str, list[str]]":
    """Return the fields ``keys`` of /proc/PID/status, of ``self`` our own."""
    return _fields(_read(f"/proc/{pid}/status"), keys)


def is_roots(pid: int, proc: str = "/proc") -> bool:
    """Tell whether a process is root's, and in no pid namespace below that of ``proc``."""
    status = _fields(_read(f"{proc}/{pid}/status"), ("Uid", "NSpid"))
    return set(status.get("Uid", ())) == {"0"} and len(status.get("NSpid", ())) < 2


def effective_capabilities() -> int:
    """Return the capabilities that we have in effect, as bits."""
    return int(status_of("self", ("CapEff",))["CapEff"][0], 16)


def threads(pid: int) -> "list[int]":
    """Return the numbers of the threads of ``pid``, the first one's too."""
    return [int(tid) for tid in os.listdir(f"/proc/{pid}/task")]


def has_filtered_thread(pid: int) -> bool:
    """Tell whether any thread is under seccomp; whichever ends meanwhile is not."""
    return any(_is_filtered(f"/proc/{pid}/task/{tid}/status") for tid in threads(pid))


def _is_filtered(status: str) -> bool:
    try:
        text = _read(status)
    except OSError:
        return False
    return b"\nSeccomp:\t2" in text or b"\nSeccomp:\t1" in text  # 3 is of the dead


def pin(pid: int) -> int:
    """Return a descriptor that stands for process ``pid``, -1 if there is none."""
    return _pinned(f"/proc/{pid}")


def pin_thread(pid: int, tid: int) -> int:
    """Return a descriptor that stands for thread ``tid`` of a process, -1 if there is none."""
    return _pinned(f"/proc/{pid}/task/{tid}")


def _pinned(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return -1


def status(pinned: int, keys: "Iterable[str]") -> "dict[str, list[str]]":
    """Return the fields ``keys`` of /proc/PID/status; none of a process that has been reaped."""
    try:
        fd = os.open("status", os.O_RDONLY | os.O_CLOEXEC, dir_fd=pinned)
    except OSError:
        return {}
    try:  # without Python's own files: a scan asks for thousands
        text = b"".join(iter(lambda: os.read(fd, 8192), b""))
    except OSError:
        return {}
    finally:
        os.close(fd)
    return _fields(text, keys)


def _fields(text: bytes, keys: "Iterable[str]") -> "dict[str, list[str]]":
    found = {}
    text = b"\n" + text
    for key in keys:  # a look at each of its 60 lines costs five times as much
        at = text.find(b"\n%b:" % key.encode())
        if at >= 0:
            value = text[at + len(key) + 2 : text.find(b"\n", at + 1)]
            found[key] = value.decode("utf-8", "replace").split()
    return found


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def is_there(pinned: int) -> bool:
    """Tell whether the process has not been reaped: until then its number is its own."""
    return bool(status(pinned, ("Pid",)))


def kill(pinned: int) -> bool:
    """End the process; False where that cannot be done to it alone (before Linux 5.1)."""
    import _signal
    import errno

    try:
        _signal.pidfd_send_signal(pinned, _signal.SIGKILL)
    except OSError as error:
        return error.errno == errno.ESRCH  # it has ended already
    return True


def tell(pinned: int, message: str) -> None:
    """Write ``message`` to the standard error of the process: our own may be closed by now."""
    try:
        flags = os.O_WRONLY | os.O_APPEND | os.O_NOCTTY | os.O_NONBLOCK
        fd = os.open("fd/2", flags, dir_fd=pinned)
        os.write(fd, f"seccomp-shim: {message}\n".encode())
        os.close(fd)
    except OSError:
        pass  # the log has it


def tracer_of(pid: int) -> int:
    """Return who traces thread ``pid`` at this moment; 0: nobody, or it is gone."""
    try:
        return _tracer(status_of(pid, ("TracerPid",)))
    except OSError:
        return 0


def _tracer(fields: "dict[str, list[str]]") -> int:
    return int(fields.get("TracerPid", ["0"])[0])


def held_by_us(pinned: int) -> bool:
    """Tell whether another tracer of ours holds the process: of our name, the user that we are."""
    tracer = _tracer(status(pinned, ("TracerPid",)))
    if tracer in (0, os.getpid()):
        return False
    holder = pin(tracer)
    found = status(holder, ("Name", "Uid"))
    if holder >= 0:
        os.close(holder)
    name, users = found.get("Name", [""])[0], set(found.get("Uid", ()))
    return name.startswith(TRACER) and users == {str(os.geteuid())}
