"""The command line of a runtime as we read it, held against what the real one opens."""

import os
import random
import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fuzz.conftest import Inputs
from fuzz.opened import Opened
from shim.start.wrapper.argv import CommandLine
from support import need
from support.wrapped import Recorder

NAMES = ("b1", "b2", "create", "state", "--root")
IDS = ("c1", "c2", "run", "exec")
# What is @ becomes one of the directories, = an id, % any other word. Most words are among those
# that both runtimes take; the others belong to one of them, are cut short, or are nobody's.
GENERAL = ["--root @", "--root=@", "--debug", "--log /dev/null", "--log-format json"]
GENERAL_ODD = [
    "-root @", "-debug", "--log=%", "--systemd-cgroup=false", "--rootless auto", "--", "--nosuch",
    "--roo @", "--criu %", "--cgroup-manager disabled", "--log-level=error",
]  # fmt: skip
STARTING = ["--bundle @", "--bundle=@", "-b @", "--pid-file %", "--no-pivot", "--no-new-keyring"]
STARTING_ODD = [
    "-b=@", "-b@", "-bundle @", "--bun @", "--console-socket=%", "--preserve-fds 1", "-d",
    "--preserve-fds=0", "--detach", "-db @", "--keep", "--no-subreaper", "--", "--nosuch",
    "--pidfd-socket %", "-f=config.json", "--config config.json",
]  # fmt: skip
JOINING = ["--cwd %", "-e A=%", "--env=A=1", "-d", "--detach", "-u 0", "--user=0:0", "--pid-file %"]
JOINING_ODD = [
    "--cwd=%", "-eA=1", "--tty=false", "-g 5", "--cap CAP_KILL", "-c CAP_KILL", "--no-new-privs",
    "--apparmor %", "--preserve-fds 0", "--ignore-paused", "--cgroup %", "--process-label %", "--",
    "-p %", "--process %", "--nosuch", "-du 0", "-te A=1",
]  # fmt: skip


def drawn(draw: random.Random) -> list[str]:
    """Return a command line that may be one of an engine's, or go astray."""

    def some(most: int, *lists: list[str]) -> list[str]:
        number = draw.randint(0, most)
        return [draw.choice(draw.choices(lists, (8, 2, 1)[: len(lists)])[0]) for _ in range(number)]

    verb = draw.choice(["create", "run", "exec", "exec", "create", "restore"])
    behind = (JOINING, JOINING_ODD) if verb == "exec" else (STARTING, STARTING_ODD)
    words = [*(["--root @"] if draw.random() < 0.8 else []), *some(2, GENERAL, GENERAL_ODD)]
    words += [verb, *some(3, *behind), "="]
    words += some(2, ["%"], *behind) if verb == "exec" else some(1, *behind, ["=", "-x", "--"])
    values = {"@": NAMES, "%": ("x", *NAMES, *IDS, "")}
    found = []
    for word in " ".join(words).split(" "):
        for sign in "@%":
            word = word.replace(sign, draw.choice(values[sign]))  # noqa: PLW2901
        found.append(draw.choice(IDS) if word == "=" else word)
    return found


class Place:
    """Directories that are bundles and hold states at once, all of them watched."""

    def __init__(self, folder: Path) -> None:
        """Fill it with files that no runtime takes for whole."""
        self.folder = folder
        self.opened = Opened()
        for top in (folder, *(folder / name for name in NAMES)):
            top.mkdir(exist_ok=True)
            (top / "config.json").write_text("{}")
            self.opened.watch(top / "config.json")
            for ident in IDS:
                (top / ident).mkdir(exist_ok=True)
                for name in ("state.json", "status"):  # runc's and crun's
                    (top / ident / name).write_text("{")
                    self.opened.watch(top / ident / name)

    def read_by(self, command: list[str]) -> set[Path]:
        """Return what a command opens of it; none where it only prints its help."""
        self.opened.taken()
        subprocess.run(
            command, cwd=self.folder, stdin=subprocess.DEVNULL, capture_output=True, check=False,
            timeout=60,
        )  # fmt: skip
        return {path.relative_to(self.folder) for path in self.opened.taken()}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """Yield the directories."""
    need.root()
    (tmp_path / "place").mkdir()
    place = Place(tmp_path / "place")
    yield place
    place.opened.close()


def ours(words: list[str]) -> tuple[str, str, str, str]:
    """Return the verb, and the files that we think are read: config, and state by its directory."""
    line = CommandLine(words)
    bundle = line.options.get("bundle", ".")
    config = os.path.normpath(os.path.join(bundle, line.options.get("config", "config.json")))
    return line.verb, config, line.options.get("root", ""), line.container()


@pytest.mark.parametrize("runtime", ["runc", "crun"])
def test_what_the_runtime_reads_is_what_we_read(
    place: Place, tmp_path: Path, inputs: Callable[..., Inputs], runtime: str
) -> None:
    """A start reads the config.json that we would change, an exec the state that we look at.

    And the shell part has asked the interpreter before each of them. What we take for one where the
    runtime sees none does no harm: it gets the very same words.
    """
    real = need.program(runtime)
    (tmp_path / "recorder").mkdir()
    recorder = Recorder(tmp_path / "recorder")
    tries = inputs(f"command lines ({runtime})", few=50, many=2500)
    for draw in tries:
        words = drawn(draw)
        line = shlex.join(words)
        seen = place.read_by([real, *words])
        configs = {str(path) for path in seen if path.name == "config.json"}
        states = {path.parent for path in seen if path.name != "config.json"}
        verb, config, root, ident = ours(words)
        if not configs and not states:
            tries.count("nothing started")
            continue
        recorder.call(*words)
        assert recorder.interpreted(), line
        if configs:
            tries.count("starts")
            assert verb in ("create", "run", "restore"), line
            assert configs == {config}, line
        else:
            tries.count("execs")
            assert verb == "exec", line
            assert states == {Path(root) / ident}, line
