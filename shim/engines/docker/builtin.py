"""The built-in profile of a Docker daemon, from the data that is shipped with us."""

from functools import lru_cache
from pathlib import Path

from shim import data
from shim.profile.docker_releases import builtin
from shim.profile.document import DOCKER, Document


@lru_cache(maxsize=8)
def profile(version: str) -> tuple[Document | None, str]:
    """Return the profile that a daemon of ``version`` has built in, or None and why it is unknown.

    All callers get the same tree, which is not theirs to change.
    """
    tree, reason = builtin(version, _text("default.json"), _text("versions.json"))
    if tree is None:
        return None, reason
    return Document(f"the profile built into Docker {version}", "", tree, DOCKER), ""


def _text(name: str) -> str:
    directory: Path = data.directory("profiles") / "docker"
    return (directory / name).read_text(encoding="utf-8")
