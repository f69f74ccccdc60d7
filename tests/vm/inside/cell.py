"""One cell of the matrix: a case on a kernel and a stack, and what a case may use."""

import importlib
import json
import subprocess
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SECONDS = (
    400  # for any one program; under emulation a container takes two to ten, on a busy machine more
)
PYTHON = "/usr/bin/python3"
TREE = "/run/lab/tree"
BIN = "/opt/seccomp-shim/bin"
LOG = "/var/log/seccomp-shim/audit.jsonl"
ORDINARY_USER = "65534:65534"


_installed: dict[Path, tuple[str, ...]] = {}


@dataclass
class Outcome:
    """What a case saw, in a word or two for the table, and all that is not as it must be.

    ``kinds`` are containers of which scan had said how they end: ``kind``, ``said``, ``happened``.
    """

    told: str
    wrong: list[str] = field(default_factory=list)
    kinds: list[dict[str, str]] = field(default_factory=list)

    def expect(self, holds: bool, otherwise: str) -> "Outcome":
        """Note ``otherwise`` as wrong unless it ``holds``; give itself."""
        if not holds:
            self.wrong.append(otherwise)
        return self


@dataclass(frozen=True)
class Cell:
    """Where a case runs."""

    kernel: str
    state: str  # of uretprobe: absent, filtered, exempt
    stack: str
    knows_uretprobe: bool  # the stack's libseccomp resolves the name
    root: Path
    libraries: tuple[str, ...] = ()  # where Debian's own are too old for us
    keeper: int = 0  # a process in the stack's mount namespace, whose root is ``root``

    @property
    def docker_allows(self) -> bool:
        """Tell whether the stack's dockerd allows uretprobe by default: from 28.2 on."""
        return self.stack == "sid"

    @property
    def kills(self) -> bool:
        """Tell whether an unshimmed container dies here."""
        return self.state == "filtered"

    def command(self, args: list[str], user: str = "") -> list[str]:
        """Return the command line that runs ``args`` in the stack."""
        enter = ["nsenter", "--mount", "--target", str(self.keeper)]
        return [*enter, *(["chroot", f"--userspec={user}", "/"] if user else []), *args]

    def run(self, args: list[str], user: str = "") -> "subprocess.CompletedProcess[str]":
        """Run ``args`` in the stack to its end."""
        return subprocess.run(
            self.command(args, user),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )

    def shim(self, *args: str, site: bool = False) -> list[str]:
        """Return the command line of ``seccomp-shim`` with ``args``, from the tree under test.

        With ``site`` it has the stack's own libraries (Debian's python3-yaml and others).
        """
        return self.python("from shim.cli import main; sys.exit(main())", *args, site=site)

    def python(self, code: str, *args: str, site: bool = False) -> list[str]:
        """Return the command line that runs ``code`` with the tree under test."""
        code = f"import sys; sys.path[:0] = {[TREE, *self.libraries][: 1 + site]!r}; {code}"
        return [PYTHON, "-I" if site else "-IS", "-c", code, *args]

    def verb(self, *args: str) -> str:
        """Run ``seccomp-shim`` with ``args``; give what it said."""
        done = self.run(self.shim(*args, site=True))
        if done.returncode:
            raise RuntimeError(f"seccomp-shim {args}: {done.stdout}{done.stderr}")
        return done.stdout

    def hook(self) -> str:
        """Put the hook into the stack, as the installation would, and give its path there."""
        path = "/run/lab/seccomp-shim-hook"
        code = "from pathlib import Path; from shim.engines.registration import hookfile; "
        done = self.run(self.python(f"{code} hookfile.render(Path({path!r}))"))
        if done.returncode:
            raise RuntimeError(done.stderr)
        return path

    def install(self, *engine: str) -> None:
        """Put all executables into the stack, as the installation would, and no settings.

        ``engine`` is what ``seccomp-shim install`` is given then, unless that was the last thing.
        """
        if not (self.root / BIN[1:]).exists():
            (self.root / BIN[1:]).mkdir(parents=True)
            code = "from pathlib import Path; from shim.engines.registration import hookfile; "
            done = self.run(self.python(f"{code} hookfile.render_all(Path({BIN!r}))"))
            if done.returncode:
                raise RuntimeError(done.stderr)
        if engine and _installed.get(self.root) != engine:
            self.verb("install", *engine)
            _installed[self.root] = engine

    def uninstall(self, engine: str) -> None:
        """Take us out of ``engine``, where an earlier case may have left us."""
        self.verb("uninstall", engine)
        _installed.pop(self.root, None)

    def new_log(self) -> list[dict[str, Any]]:
        """Return the audit lines written since the last look, and start the log anew."""
        log = self.root / LOG[1:]
        if not log.exists():
            return []
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        log.unlink()
        return lines


def run_cell(
    kernel: dict[str, str], stack: dict[str, Any], place: tuple[Path, int], case: str
) -> dict[str, Any]:
    """Run one case (``name`` or ``name/variant``); a failure of the case itself is a wrong too.

    ``place`` is the stack's root and its keeper.
    """
    cell = Cell(
        *(kernel["name"], kernel["state"], stack["name"], stack["knows_uretprobe"]),
        *(place[0], tuple(stack["libraries"]), place[1]),
    )
    name, _, variant = case.partition("/")
    began = time.monotonic()
    try:
        cell.new_log()
        module = importlib.import_module(f"vm.cases.{name.replace('-', '_')}")
        outcome: Outcome = module.run(cell, variant) if variant else module.run(cell)
    except Exception as error:
        outcome = Outcome("error", [f"{type(error).__name__}: {error}", traceback.format_exc()])
    return {
        "kernel": cell.kernel,
        "stack": cell.stack,
        "case": case,
        "told": outcome.told,
        "wrong": outcome.wrong,
        **({"kinds": outcome.kinds} if outcome.kinds else {}),
        "seconds": round(time.monotonic() - began, 1),
    }
