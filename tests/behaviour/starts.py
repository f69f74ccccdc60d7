"""How one kind of container is started, and all that can be seen of it."""

import json
import os
import select
import shutil
import socket
import stat
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from behaviour.bundle import STAGES, Bundle
from behaviour.lab import IDENT, RUNTIMES, SECONDS, Lab, flat, normal
from support.image import at_terminal

Change = Callable[[Bundle], None]
How = Callable[["Kind", Lab, Bundle], None]


def created(kind: "Kind", lab: Lab, bundle: Bundle) -> None:
    """Start as engines do: create, state, start, state when it has ended, delete."""
    pid_file = lab.folder / "pid"
    options = ["--bundle", kind.where(bundle), "--pid-file", str(pid_file), *kind.options]
    words = [*kind.general, "create", *options, kind.ident]
    environment = {"env": bundle.environment}
    if lab.call("create", *words, data=kind.data, seconds=kind.seconds, **environment) == 0:
        lab.ask_state("created", kind.ident)
        with _Ending(pid_file) as ending:
            lab.call("start", "start", kind.ident)
            ending.wait()
        lab.ask_state("stopped", kind.ident)
    lab.delete(kind.ident)
    lab.read_streams("create", "start")


def ran(kind: "Kind", lab: Lab, bundle: Bundle) -> None:
    """Start in the foreground: the exit status is the container's."""
    for step in ("run", "again") if kind.times == 2 else ("run",):
        words = [*kind.general, "run", "--bundle", kind.where(bundle), *kind.options, kind.ident]
        environment = {"env": bundle.environment}
        lab.call(step, *words, data=kind.data, seconds=kind.seconds, **environment)
        lab.read_streams(step)
        if step == "run":
            _note_record(lab, bundle)
    lab.ask_state("after", kind.ident)
    lab.delete(kind.ident)


def detached(kind: "Kind", lab: Lab, bundle: Bundle) -> None:
    """Start and leave it running; then it is asked for, and ends by itself."""
    pid_file = lab.folder / "pid"
    options = ["--detach", "--bundle", kind.where(bundle), "--pid-file", str(pid_file)]
    words = [*kind.general, "run", *options, *kind.options, kind.ident]
    if lab.call("run", *words, data=kind.data, seconds=kind.seconds) == 0:
        with _Ending(pid_file) as ending:
            ending.wait()
        lab.ask_state("stopped", kind.ident)
    lab.delete(kind.ident)
    lab.read_streams("run")


def at_a_terminal(kind: "Kind", lab: Lab, bundle: Bundle) -> None:
    """Start in the foreground from a terminal."""
    words = ["run", "--bundle", kind.where(bundle), *kind.options, kind.ident]
    code, seen = at_terminal(lab.command(*words))
    lab.seen |= {"run.status": str(code), "run.terminal": seen}
    lab.delete(kind.ident)


def by_console_socket(kind: "Kind", lab: Lab, bundle: Bundle) -> None:
    """Create with a socket to which the runtime sends the terminal, as engines have it."""
    address = lab.folder / "console"
    pid_file = lab.folder / "pid"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(address))
        listener.listen()
        options = ["--bundle", kind.where(bundle), "--console-socket", str(address)]
        words = ["create", *options, "--pid-file", str(pid_file), *kind.options, kind.ident]
        if lab.call("create", *words) == 0:
            connection, _ = listener.accept()
            with connection:
                name, (terminal,), _, _ = socket.recv_fds(connection, 4096, 1)
            lab.seen["console.name"] = name.decode()
            lab.ask_state("created", kind.ident)
            with _Ending(pid_file) as ending:
                lab.call("start", "start", kind.ident)
                ending.wait()
            lab.seen["console.output"] = os.read(terminal, 65536).decode()
            os.close(terminal)
    address.unlink()
    lab.delete(kind.ident)
    lab.read_streams("create", "start")


def at_once(kind: "Kind", lab: Lab, bundle: Bundle) -> None:
    """Start several containers from one bundle directory at the same moment."""
    processes = [
        subprocess.Popen(
            lab.command("run", "--bundle", str(bundle.folder), f"{kind.ident}-{number}"),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for number in range(kind.times)
    ]  # fmt: skip
    for number, process in enumerate(processes):
        try:
            output, _ = process.communicate(timeout=SECONDS)
            lab.seen[f"run-{number}.output"] = "\n".join(sorted(output.splitlines()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
        lab.seen[f"run-{number}.status"] = str(process.returncode)
        lab.delete(f"{kind.ident}-{number}")
    for stage in STAGES:  # who came first is nobody's promise
        path = bundle.record / stage
        lines = path.read_text().splitlines() if path.exists() else []
        path.write_text("\n".join(line for line in lines if '"id"' not in line))


def to_a_running_one(kind: "Kind", lab: Lab, bundle: Bundle) -> None:
    """Start a second container by the name of one that is there."""
    words = ["--bundle", str(bundle.folder), kind.ident]
    for step in ("create", "again"):
        lab.call(step, "create", *words)
    lab.ask_state("created", kind.ident)
    lab.delete(kind.ident)
    lab.read_streams("create", "again")


@dataclass(frozen=True)
class Kind:
    """One kind of start: ``change`` says how its bundle differs, the rest how it is called.

    ``untouched`` are the settings in which its filter is not to be adjusted.
    """

    name: str
    change: Change = lambda _: None
    how: How = created
    options: tuple[str, ...] = ()
    general: tuple[str, ...] = ()
    ident: str = IDENT
    where: Callable[[Bundle], str] = lambda bundle: str(bundle.folder)
    data: str = "typed\n"
    times: int = 1
    seconds: int = SECONDS
    user: int = 0
    untouched: tuple[str, ...] = ()
    runtimes: tuple[str, ...] = RUNTIMES


def observe(kind: Kind, lab: Lab) -> dict[str, str]:
    """Start ``kind`` in ``lab`` and return all that was seen."""
    lab.seen = {}
    lab.wrapped.log_path.unlink(missing_ok=True)
    for path in lab.folder.iterdir():
        if path.name != "busybox":
            _remove(path)
    bundle = Bundle(lab.folder)
    kind.change(bundle)
    bundle.write()
    lab.user = kind.user
    if kind.user:
        _give(lab.folder, kind.user)
    try:
        kind.how(kind, lab, bundle)
    finally:
        lab.user = 0
        os.chown(lab.folder, 0, 0)
    _note_record(lab, bundle)
    _note_files(lab, bundle)
    lab.note_processes()
    lab.note_alarms()
    return {aspect: normal(text) for aspect, text in lab.seen.items()}


def _note_record(lab: Lab, bundle: Bundle) -> None:
    """Note what each hook was given: its environment, and the state member by member."""
    for stage in STAGES:
        path = bundle.record / stage
        lines = path.read_text(errors="replace").splitlines() if path.exists() else []
        lab.seen[f"hooks.{stage}.calls"] = str(sum(line.startswith("argument") for line in lines))
        rest = []
        for line in lines:
            if line.startswith("{"):
                lab.note_json(f"hooks.{stage}.state", line)
            else:
                rest.append(line)
        lab.seen[f"hooks.{stage}.environment"] = "\n".join(sorted(rest))


def _note_files(lab: Lab, bundle: Bundle) -> None:
    """Note what lies in the bundle and among the runtime's states, and what the config says."""
    top = bundle.folder
    found = [_describe(path, top) for path in sorted(top.rglob("*")) if "rootfs/" not in str(path)]
    lab.seen["bundle.files"] = "\n".join(found)
    root = lab.root
    states = sorted(root.rglob("*")) if root.exists() else []
    lab.seen["states.files"] = "\n".join(str(path.relative_to(root)) for path in states)
    logs = [lab.folder / "log", lab.folder / "pid"]
    lab.seen["left.files"] = " ".join(path.name for path in logs if path.exists())
    if logs[0].exists():
        lab.seen["log"] = logs[0].read_text()
    if not bundle.path.is_file():
        return
    text = bundle.path.read_bytes()
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        lab.seen["config.text"] = text.decode(errors="replace")
        return
    _note_config(lab, document)


def _note_config(lab: Lab, document: Any) -> None:
    """Note the parts of a config.json by themselves, and apart from them what is ours."""
    if not isinstance(document, dict):
        lab.seen["config.text"] = json.dumps(document)
        return
    rest = dict(document)
    annotations, hooks = rest.pop("annotations", None), rest.pop("hooks", None)
    lab.seen |= flat("config.annotations", annotations or {})
    lab.seen["config.rest"] = json.dumps(rest)
    ours = []
    if not isinstance(hooks, dict | None):
        lab.seen["config.hooks"] = json.dumps(hooks)
        return
    for stage, entries in (hooks or {}).items():
        left = entries
        if isinstance(entries, list):
            left = [each for each in entries if not _is_ours(each, lab)]
            ours += [stage] * (len(entries) - len(left))
        if left not in ([], None):
            lab.seen[f"config.hooks.{stage}"] = json.dumps(left)
    lab.seen["config.ours"] = " ".join(sorted(ours))


def _is_ours(entry: object, lab: Lab) -> bool:
    words = entry.get("args") if isinstance(entry, dict) else None
    return isinstance(words, list) and any(
        isinstance(word, str) and word.startswith(f"{lab.wrapped.bin}/") for word in words
    )


def filtered(seen: dict[str, str]) -> bool:
    """Tell whether the container's program said that it runs under a filter."""
    return any("Seccomp:\t2" in text for text in seen.values())


def _describe(path: Path, top: Path) -> str:
    info = path.lstat()
    return f"{path.relative_to(top)} {stat.filemode(info.st_mode)} {info.st_uid}:{info.st_gid}"


def _give(folder: Path, user: int) -> None:
    """Have a user own a directory with all that is in it."""
    for path in (folder, *folder.rglob("*")):
        os.chown(path, user, user, follow_symlinks=False)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


class _Ending:
    """The end of a container's first process, which may come before anybody looks."""

    def __init__(self, pid_file: Path) -> None:
        self.fd = -1
        with suppress(OSError, ValueError):  # it has ended, or was never told of
            self.fd = os.pidfd_open(int(pid_file.read_text()))

    def __enter__(self) -> "_Ending":
        return self

    def __exit__(self, *_: object) -> None:
        if self.fd >= 0:
            os.close(self.fd)

    def wait(self) -> None:
        if self.fd >= 0:
            select.select([self.fd], [], [], SECONDS)
