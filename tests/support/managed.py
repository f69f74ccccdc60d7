"""Ansible run as an operator runs it, over ssh, with the collection of this checkout."""

import atexit
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from support.checkout import CHECKOUT

BIN = Path(sys.executable).parent
EXAMPLE = CHECKOUT / "deploy/ansible/example"
COLLECTION = "seccomp_shim.host"
_SECONDS = 300


def environment() -> dict[str, str]:
    """Return the environment of the operator: the example's settings, the project as it is now."""
    kept = {key: os.environ[key] for key in ("HOME", "PATH", "LANG") if key in os.environ}
    config = str(EXAMPLE / "ansible.cfg")
    return {**kept, "ANSIBLE_CONFIG": config, "ANSIBLE_NOCOLOR": "1", "PYTHONPATH": project()}


@functools.cache
def project() -> str:
    """Copy what goes to hosts: an edit of the checkout during the tests is an upgrade to them."""
    folder = tempfile.mkdtemp(prefix="seccomp-shim-project-")
    atexit.register(shutil.rmtree, folder)
    for name in ("shim", "hooks", "profiles", "deploy/ansible/ansible_collections"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(CHECKOUT / name, f"{folder}/{name}", ignore=ignored)
    for name in ("LICENSE", "README.md", "install.sh", "pyproject.toml"):
        shutil.copy(CHECKOUT / name, folder)
    return folder


def ask(
    inventory: Path,
    module: str,
    *words: str,
    hosts: str = "all",
    become: bool = True,
    given: Mapping[str, Any] | None = None,
) -> dict[str, dict[str, Any]]:
    """Run a module of the collection on hosts; give each host's result.

    It has ``unreachable`` and ``failed``, and as ``said`` all that was shown for all hosts.
    ``given`` are the module's arguments, ``words`` options of ansible(1) such as ``--check``.
    """
    tree = inventory.with_suffix(".results")
    for old in tree.glob("*"):
        old.unlink()
    command = [BIN / "ansible", "-i", inventory, hosts, "-t", tree, *words]
    command += ["-m", f"{COLLECTION}.{module}", *(["-a", json.dumps(given)] if given else [])]
    done = _run([*command, *(["--become"] if become else [])])
    results = {each.name: json.loads(each.read_text()) for each in tree.glob("*")}
    said = done.stdout + done.stderr
    assert results, said
    for name, each in results.items():
        each["unreachable"] = f"{name} | UNREACHABLE!" in said
        each["failed"] = f"{name} | FAILED!" in said
        each["said"] = said
    # Nobody is shown a traceback, whatever befalls a host.
    assert "Traceback" not in said, said
    return results


def play(inventory: Path, playbook: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run a playbook."""
    return _run([BIN / "ansible-playbook", "-i", inventory, playbook, *words])


def _run(command: list[Any]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command,
        cwd=EXAMPLE,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=_SECONDS,
    )
