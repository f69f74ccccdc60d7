"""A host with a local user on it."""

from collections.abc import Iterator

import pytest

from shim import log
from support import attacker
from support.attacker import NAME, Scene
from support.fleet import DENYING, Host


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    """Yield a host with a user's home."""
    with attacker.homes() as folder:
        host = Host(folder)
        etc, home = host.root / "etc", host.root / "home/mallory"
        etc.mkdir()
        (etc / NAME).write_bytes(DENYING)
        home.mkdir(parents=True)
        attacker.give(home)
        monkeypatch.setattr(log, "path", lambda: host.log)
        yield Scene(host, etc, home)
