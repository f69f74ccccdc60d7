"""What the running engine knows: it reads its configuration when it starts, and only then.

What one has read that was running when the file was changed is kept in the node's /run until the
node boots; any other has read the file as it is.
"""

import json
from collections.abc import Iterator

from shim import atomic
from shim.host import cache, processes
from shim.node.root import NodeRoot

_PATH = f"{cache.DIRECTORY}/engines.json"


class EngineMemory:
    """The processes of ``engine`` on the node that read ``config``, and what each knows."""

    def __init__(self, root: NodeRoot, engine: str, config: str) -> None:
        self._root = root
        self._engine = engine
        self._config = config
        self._path = root.path(_PATH)

    def known(self, registered: str) -> list[str]:
        """Return what each that runs has read of us; ``registered`` is what its file has."""
        return list(self._known(registered).values())

    def keep(self, registered: str) -> None:
        """Keep what is known of those that run, before and after the file is changed. OSError."""
        known = self._known(registered)
        atomic.write_atomic(self._path, json.dumps(known).encode())

    def _known(self, registered: str) -> dict[str, str]:
        try:
            with open(self._path, encoding="utf-8") as file:
                kept = json.load(file)
        except FileNotFoundError:
            kept = {}
        return {each: str(kept.get(each, registered)) for each in self._running()}

    def _running(self) -> Iterator[str]:
        """Name each process by its id and start, which no other of this boot has."""
        directory = self._root.path("/proc")
        for pid in processes.pids(directory):
            try:
                name = processes.name(pid, directory)
                words = processes.command_line(pid, directory)
                started = processes.started(pid, directory)
            except OSError:
                continue  # ended meanwhile
            if name == self._engine and self._reads(words):
                yield f"{pid} {started}"

    def _reads(self, words: list[str]) -> bool:
        """Tell whether one with this command line reads the file: Docker's own does not."""
        for word, value in zip(words, [*words[1:], ""], strict=True):
            if word in ("--config", "-c"):
                return value == self._config
            if word.startswith("--config="):
                return word.partition("=")[2] == self._config
        return True
