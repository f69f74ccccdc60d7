"""The kinds of processes that join a container, as data, and how each is tried."""

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from behaviour.bundle import LOOK, Bundle
from behaviour.kinds import script
from behaviour.lab import IDENT, SECONDS, Lab, normal
from support.image import at_terminal

How = Callable[["Exec", Lab, str], None]
ID = "ID"  # stands for the container's id in a kind's words


def called(kind: "Exec", lab: Lab, ident: str) -> None:
    """Call it, and see what it prints."""
    lab.call("exec", *kind.command(ident, lab), data=kind.data)
    lab.read_streams("exec")


def at_a_terminal(kind: "Exec", lab: Lab, ident: str) -> None:
    """Call it from a terminal."""
    code, seen = at_terminal(lab.command(*kind.command(ident, lab)))
    lab.seen |= {"exec.status": str(code), "exec.terminal": seen}


def detached(kind: "Exec", lab: Lab, ident: str) -> None:
    """Have it stay behind when the runtime returns; its pid is in a file."""
    pid_file = lab.folder / "exec-pid"
    words = kind.command(ident, lab)
    words[1:1] = ["--detach", "--pid-file", str(pid_file)]
    lab.call("exec", *words, data=kind.data)
    if pid_file.exists():
        _wait_gone(int(pid_file.read_text()))
        pid_file.unlink()
        lab.seen["exec.pid"] = "told"
    lab.read_streams("exec")


def by_console_socket(kind: "Exec", lab: Lab, ident: str) -> None:
    """Have its terminal handed over by a socket."""
    address = lab.folder / "console"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(address))
        listener.listen()
        words = kind.command(ident, lab)
        words[1:1] = ["--detach", "--console-socket", str(address)]
        if lab.call("exec", *words) == 0:
            connection, _ = listener.accept()
            with connection:
                _, (terminal,), _, _ = socket.recv_fds(connection, 4096, 1)
            lab.seen["exec.terminal"] = os.read(terminal, 4096).decode()
            os.close(terminal)
    address.unlink()
    lab.read_streams("exec")


def signalled(kind: "Exec", lab: Lab, ident: str) -> None:
    """Send the runtime a signal when its process is at work, which crun keeps for itself."""
    output = lab.folder / "exec.stdout"
    with output.open("wb") as stream:
        process = subprocess.Popen(
            lab.command(*kind.command(ident, lab)),
            stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT,
        )  # fmt: skip
        deadline = time.monotonic() + SECONDS
        while "ready" not in output.read_text() and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(signal.SIGTERM)
        lab.seen["exec.status"] = str(process.wait(SECONDS))
    lab.read_streams("exec")


@dataclass(frozen=True)
class Exec:
    """One kind of exec: the words behind the verb, in which ``ID`` is the container's.

    ``into`` is which container: one that runs, or that was created, has ended or is paused.
    """

    name: str
    words: tuple[str, ...]
    how: How = called
    into: str = "running"
    process: dict[str, object] | None = None
    data: str = "typed\n"

    def command(self, ident: str, lab: Lab) -> list[str]:
        """Return the words for one container."""
        path = lab.folder / "process.json"
        if self.process is not None:
            path.write_text(json.dumps(self.process))
        names = {ID: ident, "FILE": str(path)}
        return ["exec", *(names.get(word, word) for word in self.words)]


def observe(kind: Exec, lab: Lab, ident: str) -> dict[str, str]:
    """Try ``kind`` in ``lab`` and return all that was seen; the id becomes ``ID``."""
    lab.seen = {}
    lab.wrapped.log_path.unlink(missing_ok=True)
    kind.how(kind, lab, ident)
    lab.ask_state("state", ident)
    lab.seen["left.files"] = " ".join(sorted(path.name for path in lab.folder.glob("*pid*")))
    lab.note_alarms()
    return {aspect: normal(text).replace(ident, ID) for aspect, text in lab.seen.items()}


def make(lab: Lab, into: str, ident: str) -> str | None:
    """Start the container that is joined; give its id, None where it cannot be had here."""
    bundle = Bundle(lab.folder, ident)
    bundle.config["hooks"] = {}
    script("trap exit TERM; sleep 1000 & wait" if into != "stopped" else "true")(bundle)
    bundle.write()
    cgroups = ["--cgroup-manager=cgroupfs"] if into == "paused" and lab.name == "crun" else []
    lab.call("create", *cgroups, "create", "--bundle", str(bundle.folder), ident)
    if into != "created":
        lab.call("start", "start", ident)
    if into == "stopped":
        _wait_stopped(lab, ident)
    if into == "paused" and lab.call("pause", "pause", ident) != 0:
        lab.delete(ident)
        return None
    return ident


def unmake(lab: Lab, into: str, ident: str) -> None:
    """Delete it again."""
    if into == "paused":
        lab.call("resume", "resume", ident)
    lab.delete(ident)


def _wait_stopped(lab: Lab, ident: str) -> None:
    deadline = time.monotonic() + SECONDS
    while lab.seen.get("ended.status") != '"stopped"':
        assert time.monotonic() < deadline, "the container does not end"
        lab.ask_state("ended", ident)


def _wait_gone(pid: int) -> None:
    deadline = time.monotonic() + SECONDS
    while os.path.exists(f"/proc/{pid}/exe") and time.monotonic() < deadline:
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.005)


PROCESS: dict[str, object] = {
    "user": {"uid": 0, "gid": 0}, "cwd": "/", "args": ["/bin/sh", "-c", LOOK, "sh", "argument"],
    "env": ["PATH=/bin", "FROM=file"], "noNewPrivileges": True,
    "capabilities": {"bounding": ["CAP_KILL"], "effective": [], "permitted": []},
}  # fmt: skip
_LOOK = ("sh", "-c", LOOK, "sh", "argument")
_SAY = ("sh", "-c", "echo $A $B $PWD; id -u")
_TRAP = (
    'trap "echo got; exit 9" TERM; echo ready; i=0;'
    "while [ $i -lt 30 ]; do sleep 0.1; i=$((i+1)); done"
)
EXECS = (
    Exec("plain", (ID, *_LOOK)),
    Exec("exit-0", (ID, "true")),
    *(Exec(f"exit-{code}", (ID, "sh", "-c", f"exit {code}")) for code in (1, 2, 42, 126, 127, 255)),
    *(Exec(f"signal-{name}", (ID, "sh", "-c", f"kill -{name} $$")) for name in ("KILL", "TERM")),
    Exec("signalled", (ID, "sh", "-c", _TRAP), how=signalled),
    Exec("input", (ID, "cat"), data="line\n" * 40_000),
    Exec("input-none", (ID, "cat"), data=""),
    Exec("output", (ID, "sh", "-c", "yes 0123456789 | head -c 300000")),
    Exec("output-both", (ID, "sh", "-c", "echo out; echo err >&2")),
    Exec("terminal", ("-t", ID, "sh", "-c", "echo out; cat </dev/null"), how=at_a_terminal),
    Exec("terminal-nobody-has", ("-t", ID, "true")),
    Exec("terminal-unasked", (ID, "echo", "out"), how=at_a_terminal),
    Exec("console-socket", ("--tty", ID, "echo", "out"), how=by_console_socket),
    Exec("console-socket-gone", ("--tty", "--console-socket", "/nowhere", ID, "true")),
    Exec("detach", (ID, "sh", "-c", "echo out; cat"), how=detached),
    Exec("detach-missing", (ID, "/nosuch"), how=detached),
    Exec("process", ("--process", "FILE", ID), process=PROCESS),
    Exec("process-equals", ("--process=FILE", ID)),
    Exec("process-short", ("-p", "FILE", ID), process=PROCESS),
    Exec("process-missing", ("--process", "/nowhere", ID)),
    Exec("process-broken", ("--process", "FILE", ID), process={"args": 5}),
    Exec("process-detach", ("--process", "FILE", ID), process=PROCESS, how=detached),
    Exec("user", ("--user", "1000:1000", ID, *_LOOK)),
    Exec("user-short", ("-u", "7", ID, *_SAY)),
    Exec("user-unknown", ("-u", "nobody", ID, *_SAY)),
    Exec("groups", ("-g", "5", "-g", "6", ID, *_LOOK)),
    Exec("environment", ("-e", "A=1", "--env", "B=2", ID, *_SAY)),
    Exec("environment-odd", ("-e", "A", "-e", "=", "-e", "B=x=y z", ID, *_SAY)),
    Exec("environment-ours", ("-e", "SECCOMP_SHIM_DEPTH=8", "-e", "PYTHONHOME=/x", ID, *_LOOK)),
    Exec("capability", ("--cap", "CAP_NET_BIND_SERVICE", ID, *_LOOK)),
    Exec("capability-short", ("-c", "CAP_KILL", ID, *_LOOK)),
    Exec("capability-unknown", ("--cap", "CAP_NOSUCH", ID, "true")),
    Exec("folder", ("--cwd", "/tmp", ID, *_SAY)),
    Exec("folder-missing", ("--cwd", "/nosuch", ID, "true")),
    Exec("new-privileges", ("--no-new-privs", ID, *_LOOK)),
    Exec("apparmor", ("--apparmor", "nosuch", ID, "true")),
    Exec("descriptors", ("--preserve-fds", "2", ID, "true")),
    Exec("cgroup", ("--cgroup", "/nosuch", ID, "true")),
    Exec("pid-file", ("--pid-file", "exec-pid", ID, "true")),
    Exec("pid-file-nowhere", ("--pid-file", "/nowhere/pid", ID, "true")),
    Exec("program-missing", (ID, "/nosuch")),
    Exec("program-missing-by-path", (ID, "nosuch")),
    Exec("program-no-executable", (ID, "/bin/data")),
    Exec("program-directory", (ID, "/bin")),
    Exec("program-none", (ID,)),
    Exec("program-empty", (ID, "")),
    Exec("words-like-options", (ID, "echo", "--help", "-t", "--", "exec", "create")),
    Exec("words-behind-dashes", ("--", ID, "echo", "--", "-x")),
    Exec("words-odd", (ID, "echo", "", "a b", "$HOME", "\n", "ä")),
    Exec("container-missing", ("nosuch", "true")),
    Exec("container-none", ()),
    Exec("container-empty", ("", "true")),
    Exec("container-path", ("../x", "true")),
    Exec("help", ("-h",)),
    Exec("help-long", ("--help", ID, "true")),
    Exec("option-unknown", ("--nosuch", ID, "true")),
    Exec("option-without-value", ("--cwd",)),
    Exec("created", (ID, *_LOOK), into="created"),
    Exec("stopped", (ID, "true"), into="stopped"),
    Exec("paused", (ID, "true"), into="paused"),
    Exec("paused-ignored", ("--ignore-paused", "-d", ID, "true"), into="paused"),
)  # fmt: skip
_IDENTS = {"bare": "b", "allow": "a", "deny": "d", "test_syscall": "c", "pass-through": "p"}


def ident_of(lab: Lab, into: str) -> str:
    """Return a container's name, which has the same length for all labs."""
    return f"{IDENT}-{_IDENTS[lab.setting or 'bare']}-{into}"
