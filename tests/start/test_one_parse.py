"""One start reads its config.json's text once, whatever it asks of it and changes in it."""

import ast
import os
import subprocess
from pathlib import Path

import pytest

from shim.engines import oci
from support.containers import OTHER_TEST_SYSCALL, TEST_SYSCALL, profile, real
from support.wrapped import WrappedLab

# Imported before anything of ours: whoever reads JSON then, what it reads is written down.
_COUNTING = """
import shim.startjson

def loads(text, parse=shim.startjson.loads, **how):
    with open({path!r}, "a") as file:
        print(repr(text if type(text) is str else text.decode()), file=file)
    return parse(text, **how)

shim.startjson.loads = loads
"""


class Counting:
    """A directory whose executables write down the JSON that they parse, and a bundle."""

    def __init__(self, folder: Path, runtime: str) -> None:
        """Put the counting before the first import of each executable."""
        self.lab = WrappedLab(folder, runtime)
        self.path = folder / "parsed"
        self.path.touch()
        (folder / "counting.py").write_text(_COUNTING.format(path=str(self.path)))
        for name in ("hook", "precreate", "runtime"):
            file = self.lab.bin / f"seccomp-shim-{name}"
            text = file.read_text()
            before, line, after = text.partition("    from shim.start.")
            assert line
            counting = f'    sys.path.append("{folder}"); import counting\n'
            file.write_text(before + counting + line + after)
        self.bundle = folder / "bundle"
        self.bundle.mkdir()
        self.config = self.bundle / "config.json"

    def made(self, **hooks: list[dict[str, object]]) -> str:
        """Make the bundle; give the text of its config.json."""
        arguments = oci.caller((TEST_SYSCALL, OTHER_TEST_SYSCALL))
        oci.bundle(self.bundle, profile(), arguments, hooks=hooks or None)
        return self.config.read_text()

    def run(self, runtime: str) -> None:
        """Start a container of the bundle and let it end."""
        name = f"shim-one-parse-{os.getpid()}"
        command = oci.command(runtime, "run", "--bundle", str(self.bundle), name)
        done = subprocess.run(command, input="\n", capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")

    def configs(self) -> list[str]:
        """Return the texts that were parsed and are of a config.json, or once were."""
        texts = map(ast.literal_eval, self.path.read_text().splitlines())
        return [text for text in texts if '"ociVersion"' in text and '"process"' in text]


@pytest.fixture(params=["runc", "crun"])
def counting(request: pytest.FixtureRequest, tmp_path: Path) -> Counting:
    """Return such a directory for each real runtime."""
    return Counting(tmp_path, real(request.param))


def test_the_wrapper(counting: Counting) -> None:
    """The text that it found once, and the one that it put in its place once, as the proof."""
    before = counting.made()
    counting.run(counting.lab.runtime)
    mechanism = "filter-injection" if counting.lab.real.endswith("runc") else "raw-bpf"
    assert counting.lab.events("adjusted")[0]["mechanism"] == mechanism
    after = counting.config.read_text()
    assert before != after
    assert counting.configs() == [before, after]


def test_the_wrapper_at_a_bundle_of_its_own(counting: Counting) -> None:
    """Where all is in its place already, the text is parsed once and no other."""
    counting.made()
    counting.run(counting.lab.runtime)
    counting.path.write_text("")
    text = counting.config.read_text()
    counting.run(counting.lab.runtime)
    assert counting.configs() == [text]
    assert text == counting.config.read_text()


def test_the_prestart_hook_alone(counting: Counting) -> None:
    """Nobody has parsed the text before it; its tracer does not, after it."""
    hook = str(counting.lab.bin / "seccomp-shim-hook")
    options = [
        "--config",
        f"{counting.lab.folder}/config.yaml",
        "--test-syscall",
        str(TEST_SYSCALL),
    ]
    text = counting.made(prestart=[{"path": hook, "args": [hook, *options]}])
    counting.run(counting.lab.real)
    assert [line["event"] for line in counting.lab.log()] == ["adjusted"]
    assert counting.configs() == [text]


def test_the_precreate_hook(counting: Counting) -> None:
    """Two runtimes may come to read it: asked for both, parsed once, and proved once."""
    before = counting.made()
    command = [f"{counting.lab.bin}/seccomp-shim-precreate", "--config"]
    command += [f"{counting.lab.folder}/config.yaml", "--test-syscall", str(TEST_SYSCALL)]
    command += ["--runtime", counting.lab.real]
    done = subprocess.run(command, input=before, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    changed = [done.stdout] if done.stdout != before else []
    assert bool(changed) == counting.lab.real.endswith("crun")
    assert counting.configs() == [before, *changed]
