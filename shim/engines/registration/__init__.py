"""Where each engine is told of the wrapper and the hooks: one module an engine.

A module of ``ENGINES`` is an ``Engine``; the verbs install, uninstall and status know no more.
"""

import argparse
import importlib
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping, Sequence

    from shim.engines.registration.changes import Edit
    from shim.engines.registration.status import EngineStatus

ENGINES = {
    "docker": "shim.engines.docker.registration",
    "podman": "shim.engines.podman.registration",
    "containerd": "shim.engines.containerd.registration",
    "crio": "shim.engines.crio.registration",
}

_BIN = "/opt/seccomp-shim/bin"
_SECONDS = 20
_FOLDERS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Host(NamedTuple):
    """Where to look and to write; tests have a root directory of their own.

    ``root`` stands before every path of the system, ``bin`` is the directory with our executables
    as engines are to name them, ``home`` that of the user for engines without root, ``state`` where
    changes are recorded, ``log`` the audit log and ``search`` a PATH to find engines' programs on.
    """

    root: Path
    bin: Path
    home: Path
    state: Path
    log: str
    search: str

    def path(self, absolute: str) -> Path:
        """Return the place of a system's path below ``root``."""
        return self.root / absolute.lstrip("/")

    def program(self, name: str) -> str | None:
        """Return the path of an engine's program; None: it is not installed."""
        return shutil.which(name, path=self.search)

    def run(
        self, name: str, *words: str, environment: "Mapping[str, str] | None" = None
    ) -> "subprocess.CompletedProcess[str]":
        """Run an engine's program, for 20 seconds at most.

        Where it is not there, or does not end, the exit status is 127 and standard error says why.
        """
        import subprocess  # verbs without an engine must not pay for it

        program = self.program(name)
        command = [program or name, *words]
        if program is None:
            return subprocess.CompletedProcess(command, 127, "", "is not on PATH")
        try:
            return subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_SECONDS,
                check=False,
                env=environment,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return subprocess.CompletedProcess(command, 127, "", str(error))

    def executable(self, name: str) -> Path:
        """Return the path of one of our executables, as engines are to name it."""
        return self.bin / name


class Coverage(NamedTuple):
    """Which containers are looked after, which are not, and whether those that ask for nothing are.

    Both texts go on behind "covered:" and "not covered:".
    """

    covered: str
    left_out: str
    plain: bool


NOBODY = Coverage("", "", plain=False)


class RegistrationPlan(NamedTuple):
    """What is to be done: the edits, what was found and decided, and what is left to the admin.

    ``coverage`` is what is so once it is done.
    """

    edits: "list[Edit]"
    notes: list[str]
    next_steps: list[str]
    coverage: Coverage
    default: bool = False  # whether it makes us the default: kept, so that status notices a change


class Engine(Protocol):
    """One engine's module.

    ``install_options``, ``uninstall_options`` and ``status_options`` add to the verb's parser what
    only this engine has; what ``places`` and ``status`` need must be in all three. ``plan`` reads
    files and asks programs, but changes nothing. ``places`` are the files in which our entries may
    be, also those of no record; ``without`` is that of ``shim.engines.registration.changes``.
    ``removal`` gives those edits of an uninstall that can be made, and what they will mean; it
    raises ShimError where it must not be.
    ``activate`` is called after files were changed and makes the running engine read them where
    that harms nobody; it gives lines to be shown.
    """

    def install_options(self, parser: argparse.ArgumentParser) -> None: ...  # noqa: D102
    def uninstall_options(self, parser: argparse.ArgumentParser) -> None: ...  # noqa: D102
    def status_options(self, parser: argparse.ArgumentParser) -> None: ...  # noqa: D102
    def plan(self, options: argparse.Namespace, host: Host) -> RegistrationPlan: ...  # noqa: D102
    def places(self, options: argparse.Namespace, host: Host) -> list[Path]: ...  # noqa: D102
    def without(  # noqa: D102
        self, path: Path, now: bytes, original: bytes | None
    ) -> bytes | None: ...
    def removal(  # noqa: D102
        self, options: argparse.Namespace, host: Host, edits: "Sequence[Edit]"
    ) -> "tuple[list[Edit], list[str]]": ...
    def activate(self, options: argparse.Namespace, host: Host) -> list[str]: ...  # noqa: D102
    def status(self, options: argparse.Namespace, host: Host) -> "EngineStatus": ...  # noqa: D102


def add_default(group: argparse._ActionsContainer, what: str) -> None:
    """Add the choice whether containers that ask for nothing are covered, too."""
    group.add_argument(
        "--default",
        action=argparse.BooleanOptionalAction,
        help=f"{what}. The runtime that was the default goes on being used: it is what ours calls. "
        "With neither, you are asked on a terminal; elsewhere it is as with --no-default",
    )


def load(name: str) -> Engine:
    """Return the module of engine ``name``."""
    return cast("Engine", importlib.import_module(ENGINES[name]))


def this_host() -> Host:
    """Return the host as it is, for root or for the user who runs us."""
    from shim.log import path

    home = Path(os.path.expanduser("~"))
    log = path(make=False)
    state = Path("/var/lib/seccomp-shim/engines")
    if os.geteuid() != 0:
        state = Path(log).parent / "engines"
    search = f"{os.environ.get('PATH', '')}:{_FOLDERS}"
    return Host(Path("/"), _installed_bin(), home, state, log, search)


def test_is_on() -> list[str]:
    """Say that the settings have a test syscall let through; nothing where none is set."""
    from shim import config

    number = config.load()[0]["test_syscall"]
    told = (
        f"the test syscall {number} is on ({config.PATH}, test_syscall): "
        "containers are adjusted for it"
    )
    return [f"{told} on any kernel, and for the real calls on one that needs it"] if number else []


def _installed_bin() -> Path:
    """Return bin of the prefix that install.sh made: an upgrade moves ``sys.prefix``, not this."""
    versions = Path(sys.prefix).parent
    return versions.parent / "bin" if versions.name == "versions" else Path(_BIN)
