"""The kubelet's profiles on the node, patched; the pod has them, state and log at those paths."""

from collections.abc import Iterable, Sequence
from typing import Any

from shim import log
from shim.agent import main
from shim.errors import ShimError
from shim.host import cache
from shim.node.jobs import say

_KUBELET = "/var/lib/kubelet/seccomp"


class Profiles:
    """The job ``profiles``: those in ``directories``, looked for again every ``minutes``."""

    def __init__(self, directories: Sequence[str], minutes: float) -> None:
        self._folders = list(directories) or [_KUBELET]
        self._said: set[str] = set()
        self.pause = minutes * 60
        self.log = log.path()

    def step(self) -> list[str]:
        """Patch what needs it; what may not be changed is told once, and is not missing."""
        if "unknown" in cache.states().values():
            raise ShimError(
                "what this kernel does with the calls cannot be told in here",
                hint="the pod takes seccompProfile: Unconfined",
            )
        how = {"everything": False, "when": "present", "override_deny": False}
        answer = self._asked({"do": "patched", **how})
        unmade = [each for each in answer["files"] if each["result"] in ("skipped", "failed")]
        missing = [f"{each['file']}: {each['reason']}" for each in unmade]
        self._say(line for line in answer["problems"] if line not in missing)
        return missing

    def roll_back(self) -> list[str]:
        """Give back the bytes of all that nobody else has changed since."""
        problems = self._asked({"do": "rolled_back", "run_id": "", "force": False})["problems"]
        return list(problems)

    def _asked(self, question: dict[str, Any]) -> dict[str, Any]:
        paths = {"paths": self._folders, "check": False, "diff": False}
        answer: dict[str, Any] = main.answer({**question, **paths})
        if "error" in answer:
            raise ShimError(answer["error"])
        done = [each for each in answer["files"] if each["result"] in ("patched", "rolled back")]
        say(": ".join(filter(None, (e["file"], e["result"], e["reason"]))) for e in done)
        return answer

    def _say(self, lines: Iterable[str]) -> None:
        """Say what was not said before."""
        new = [line for line in lines if line not in self._said]
        self._said.update(new)
        say(new)
