"""What travels to hosts, and the interpreter that is chosen there."""

import importlib.util
import io
import shutil
import sys
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from support.checkout import CHECKOUT

PLUGINS = CHECKOUT / "deploy/ansible/ansible_collections/seccomp_shim/host/plugins"


class ModuleError(Exception):
    """What ends a module."""


class Module:
    """As much of Ansible's module as is asked here."""

    def fail_json(self, msg: str) -> None:
        """End the module with one line."""
        raise ModuleError(msg)


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location("loaded", PLUGINS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture
def payload() -> Any:
    """Return the action plugins' common part."""
    return _load("plugin_utils/payload")


@pytest.fixture
def onhost() -> Any:
    """Return the modules' common part."""
    return _load("module_utils/onhost")


def test_payload_has_the_project_and_two_libraries(payload: Any) -> None:
    """All that install.sh and the questions need is in it, and nothing compiled."""
    names = zipfile.ZipFile(io.BytesIO(payload._zipped(dict(payload._contents())))).namelist()
    assert {name.partition("/")[0] for name in names} == {
        *("shim", "hooks", "profiles", "deploy", "libraries"),
        *("LICENSE", "README.md", "install.sh", "pyproject.toml"),
    }
    wanted = {
        "shim/agent/main.py",
        "shim/catalog/calls.tsv",
        "libraries/yaml/__init__.py",
        "hooks/seccomp-shim-hook",
    }
    assert wanted <= set(names)
    files = [each for each in (CHECKOUT / "shim").rglob("*.*") if each.is_file()]
    needed = {
        str(each.relative_to(CHECKOUT)) for each in files if each.suffix not in (".pyc", ".typed")
    }
    assert {each for each in names if each.startswith("shim/")} == needed
    assert not [name for name in names if "__pycache__" in name or name.endswith((".pyc", ".so"))]


def test_payload_of_a_wheel_is_that_of_the_checkout(
    payload: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An installed package, files dated otherwise, gives the same bytes: hosts know it already."""
    data = tmp_path / "shim/_data"
    shutil.copytree(CHECKOUT / "shim", tmp_path / "checkout/shim", copy_function=shutil.copyfile)
    shutil.copytree(tmp_path / "checkout/shim", tmp_path / "shim")
    for name in ("hooks", "profiles", "deploy/ansible/ansible_collections"):
        for place in (tmp_path / "checkout", data):
            shutil.copytree(CHECKOUT / name, place / name, copy_function=shutil.copyfile)
    (data / "project").mkdir()
    for name in ("LICENSE", "README.md", "install.sh", "pyproject.toml"):
        for place in (tmp_path / "checkout", data / "project"):
            shutil.copyfile(CHECKOUT / name, place / name)
    found = payload._package
    made = []
    for package in (tmp_path / "checkout/shim", tmp_path / "shim"):
        places = {"shim": package}
        monkeypatch.setattr(
            payload, "_package", lambda name, hint, p=places: p.get(name) or found(name, hint)
        )
        made.append(payload._zipped(dict(payload._contents())))
    assert made[0] == made[1]


def test_a_new_enough_interpreter_is_used(onhost: Any) -> None:
    """The interpreter that Ansible has found does the work itself where it can."""
    assert onhost.python(Module()) == sys.executable


def test_another_interpreter_does_the_work_of_an_old_one(
    onhost: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where Ansible's is too old one of /usr/bin is taken; without one, it is said what to do."""
    monkeypatch.setattr(onhost, "NEEDED", (9, 9))
    there = Path("/usr/bin/python3").resolve().name
    known = tuple(int(number) for number in there.removeprefix("python").split("."))
    monkeypatch.setattr(onhost, "_KNOWN", ((9, 9), known))
    assert onhost.python(Module()) == f"/usr/bin/{there}"
    monkeypatch.setattr(onhost, "_KNOWN", ((9, 9),))
    has = f"this host has Python {sys.version_info[0]}.{sys.version_info[1]}"
    with pytest.raises(ModuleError, match=f"^{has}, and no newer one") as told:
        onhost.python(Module())
    assert "\n" not in str(told.value)
