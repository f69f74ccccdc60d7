"""The wheel: built, installed in an environment of its own, and run from there."""

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from shim import __version__
from support.checkout import CHECKOUT


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a fresh virtual environment with nothing but the built wheel and its dependencies."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", folder, CHECKOUT], check=True)
    [wheel] = folder.glob("*.whl")
    venv.create(folder / "env", with_pip=False)
    python = folder / "env" / "bin" / "python"
    subprocess.run([*pip, "--python", python, "install", wheel], check=True)
    return folder / "env"


def _run(environment: Path, *command: str) -> str:
    """Run ``command`` of the environment away from the checkout; give its output."""
    return subprocess.run(
        [environment / "bin" / command[0], *command[1:]],
        cwd="/",
        env={k: v for k, v in os.environ.items() if not k.startswith("PYTHON")},
        text=True,
        stdout=subprocess.PIPE,
        check=True,
    ).stdout


def test_console_script(environment: Path) -> None:
    """The installed command knows its version, and that is the package's."""
    assert _run(environment, "seccomp-shim", "--version") == f"seccomp-shim {__version__}\n"


def test_probe(environment: Path) -> None:
    """The installed command probes this kernel for every kernel-injected call."""
    facts = json.loads(_run(environment, "seccomp-shim", "probe", "--json"))
    assert facts["syscalls"].keys() == {"uretprobe", "uprobe"}


@pytest.mark.parametrize("name", ["profiles", "hooks", "deploy/ansible/ansible_collections"])
def test_data_files(environment: Path, name: str) -> None:
    """The wheel carries every data file of the checkout, byte for byte."""
    code = f"import shim.data; print(shim.data.directory({name!r}))"
    installed = Path(_run(environment, "python", "-I", "-c", code).strip())
    assert installed.is_relative_to(environment)
    source = CHECKOUT / name
    paths = [path for path in source.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    files = [path.relative_to(source) for path in paths]
    assert files
    for file in files:
        assert (installed / file).read_bytes() == (source / file).read_bytes()


def test_the_page_is_there(environment: Path) -> None:
    """The template of the fleet's page travels with the package."""
    code = "import shim.fleet as room; print(room.__path__[0])"
    assert Path(_run(environment, "python", "-I", "-c", code).strip(), "page.html.j2").is_file()
