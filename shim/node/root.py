"""The node's root directory: its programs run in it, in the pod's namespaces and confines."""

import json
import os
import shutil
import subprocess
from typing import Any

from shim.agent import facts
from shim.errors import ShimError

# Mounted there, too, so that the node's programs have scratch space and what the image brings,
# and the node's own /tmp is left alone.
_SCRATCH = "/tmp"  # noqa: S108
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ASK = "from shim.agent.main import main; main()"


class NodeRoot:
    """The directory ``top`` as the root of the node's paths; ``payload`` is the image's project."""

    def __init__(self, top: str, payload: str) -> None:
        self.top = top
        self._payload = payload

    def path(self, absolute: str) -> str:
        """Return the place of a path of the node as the pod sees it."""
        return self.top + absolute

    def script(self, *words: str) -> str:
        """Run the project's install.sh with ``words`` on the node; give what it said.

        ShimError: its last line, where it fails. No package of the node's system comes or goes.
        """
        copy = f"{_SCRATCH}/seccomp-shim"
        if not os.path.isdir(copy):
            shutil.copytree(self._payload, f"{copy}.new")
            os.rename(f"{copy}.new", copy)
        return self._run("sh", f"{copy}/install.sh", *words, "--wheels", f"{copy}/wheels")

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """Put a question of ``shim.agent.main`` to the node's own seccomp-shim."""
        python = f"{facts.PREFIX}/current/bin/python"
        answer: dict[str, Any] = json.loads(
            self._run(python, "-I", "-c", _ASK, given=json.dumps(question))
        )
        if "error" in answer:
            raise ShimError(answer["error"])
        return answer

    def installed(self) -> bool:
        """Tell whether seccomp-shim is on the node."""
        return os.path.exists(self.path(f"{facts.PREFIX}/manifest"))

    def _run(self, *command: str, given: str = "") -> str:
        done = subprocess.run(
            ["chroot", self.top, *command],
            input=given,
            capture_output=True,
            text=True,
            env={"PATH": _PATH, "HOME": _SCRATCH, "LC_ALL": "C"},
            check=False,
        )
        if done.returncode != 0:
            lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
            raise ShimError(lines[-1] if lines else f"{command[0]} ended with {done.returncode}")
        return done.stdout
