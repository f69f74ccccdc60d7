"""The wrapper on the node, and its engine told of it; or both rolled back."""

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from shim import config
from shim.agent import facts
from shim.engines import service
from shim.engines.registration import Host
from shim.errors import ShimError, counted
from shim.host import processes
from shim.node.loaded_config import EngineMemory
from shim.node.root import NodeRoot

# Where containerd's shims keep what each container was started by, one file a container.
_CONTAINERD_TASKS = "/run/containerd/io.containerd.runtime.v2.task"
# By engine: the name of its process, and its configuration where its verb does not name one.
_ENGINES = {"containerd": "/etc/containerd/config.toml", "crio": "/etc/crio/crio.conf"}
# What the node's other keepers undo is done again.
_AGAIN_SECONDS = 300


class Wrapper:
    """The job ``install``; ``words`` are those that the verb ``install`` takes."""

    pause = 10.0

    def __init__(self, root: NodeRoot, words: Sequence[str]) -> None:
        """ShimError: no engine of a node, or not its words."""
        if not words or words[0] not in _ENGINES:
            raise ShimError("install and remove take one of: " + ", ".join(_ENGINES))
        self._root = root
        self._words = list(words)
        self._options = service.options(words[0], "install", self._words[1:])
        self._file = getattr(self._options, "config", None) or _ENGINES[words[0]]
        self._memory = EngineMemory(root, words[0], self._file)
        self._next = 0.0

    @property
    def log(self) -> str:
        """Return what the node's settings name; reading them leaves a compiled copy there."""
        return self._root.path(str(config.load(self._root.path(config.PATH))[0]["log"]))

    def step(self) -> list[str]:
        """Install and register, and wait for the engine to know it."""
        if time.monotonic() >= self._next:
            self._root.script("--no-demo")
            self._tell(self._words[1:], present=True)
            self._next = time.monotonic() + _AGAIN_SECONDS
        wanted = self._registered()
        known = self._memory.known(wanted)
        engine = self._words[0]
        if not known:
            return [f"no running {engine} is to be seen that reads {self._file}"]
        if any(each != wanted for each in known):
            return [
                f"{engine} has not read yet what it was told: restart it on this node when it "
                f"suits (systemctl restart {engine}; running containers go on)"
            ]
        return []

    def roll_back(self) -> list[str]:
        """Have the engine told no more, and remove the program once nothing can call it.

        While pods have the handler it stays, for the engine could not even remove them without it.
        """
        if not self._root.installed():
            return []
        stays = f"the program stays in {facts.PREFIX} for as long"
        named = ["--config", self._file] if hasattr(self._options, "config") else []
        try:
            self._tell(named, present=False)
        except ShimError as error:
            return [str(error), stays]
        left = []
        if any(self._memory.known(self._registered())):
            left.append(f"{self._words[0]} has the handler in memory until it is restarted")
        if count := self._started():
            were = counted(count, "running container was", "running containers were")
            left.append(f"{were} started by it")
        if left:
            return [*left, stays]
        self._root.script("--uninstall")
        return []

    def _tell(self, words: Sequence[str], *, present: bool) -> None:
        """Do on the node what the verbs install and uninstall do."""
        before = self._registered()
        self._memory.keep(before)
        engines = {self._words[0]: list(words)}
        self._root.ask({"do": "registered", "engines": engines, "present": present, "check": False})
        # One that has been started meanwhile may have read either: it is taken to need a restart.
        self._memory.keep(before)

    def _registered(self) -> str:
        """Return what the engine's file has of us: the handler, that as the default, or nothing."""
        nowhere = Path(self._root.path("/"))
        host = Host(nowhere, Path(facts.PREFIX, "bin"), nowhere, nowhere, "", "")
        status = service.status(self._words[0], self._options, host)
        return ("default" if status.default else "handler") if status.registered else ""

    def _started(self) -> int:
        """Count the running containers that were started by us: each exec in them calls us."""
        ours = f"{facts.PREFIX}/bin/"
        count = 0
        for file in Path(self._root.path(_CONTAINERD_TASKS)).glob("*/*/runtime"):
            count += _read(file).startswith(ours.encode())
        proc = self._root.path("/proc")
        for pid in processes.pids(proc):
            with suppress(OSError):  # ended meanwhile
                program, *words = processes.command_line(pid, proc)
                # CRI-O's monitor of a container is told its runtime; a user can call his own so.
                if os.path.basename(program) == "conmon" and processes.is_roots(pid, proc):
                    count += any(word.startswith(ours) for word in words)
        return count


def _read(path: Path) -> bytes:
    """Return what is in a file; nothing where it is gone with its container."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


class Removal:
    """The job ``remove``: what ``install`` has done is rolled back, step by step."""

    pause = 10.0

    def __init__(self, root: NodeRoot, words: Sequence[str]) -> None:
        self._wrapper = Wrapper(root, words)

    @property
    def log(self) -> str:
        """Return what the settings name."""
        return self._wrapper.log

    def step(self) -> list[str]:
        """Roll back what can be by now."""
        return self._wrapper.roll_back()

    def roll_back(self) -> list[str]:
        """Do nothing: the end of this pod brings nothing back."""
        return []
