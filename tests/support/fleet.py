"""Hosts in a directory: profiles to be patched, with a state and an audit log of their own."""

import os
from collections.abc import Sequence
from pathlib import Path

from shim.catalog import kernel_injected
from shim.discovery.find import Survey, survey
from shim.discovery.patching import patching
from shim.discovery.profile_state import PatchOptions
from shim.discovery.root import Root
from shim.transaction import store
from shim.transaction.plan import Outcome, Plan, add, empty, run
from shim.transaction.rollback import rolling_back
from support.profiles import DOCKER, LAYOUTS, OCI

KUBELET = "var/lib/kubelet/seccomp"
DENYING = LAYOUTS["tabs"](DOCKER).encode()
OTHER = LAYOUTS["two spaces"](OCI).encode()


def options() -> PatchOptions:
    """Return what patch is told: the kernel's own calls, whatever the kernel."""
    return PatchOptions(list(kernel_injected().values()), {}, "always")


class Host:
    """A host whose root is a directory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "root"
        self.state = str(folder / "state")
        self.log = str(folder / "audit.jsonl")
        self.root.mkdir(parents=True, exist_ok=True)

    def write(self, path: str, data: bytes | str = DENYING) -> Path:
        """Make a file and the directories above it."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data.encode() if isinstance(data, str) else data)
        return file

    def profiles(self, count: int, data: bytes = DENYING) -> list[Path]:
        """Make profiles for the kubelet, in two directories."""
        names = (f"{KUBELET}/{'nested/' * (index % 2)}{index}.json" for index in range(count))
        return [self.write(name, data) for name in names]

    def survey(self, *paths: str, homes: bool = False) -> Survey:
        """Find what is there."""
        return survey(Root(str(self.root)), paths or None, options(), homes=homes)

    def patch(self, *paths: str) -> Outcome:
        """Patch all that is found."""
        return self.run(patching(self.survey(*paths)))

    def rollback(self, run_id: str = "", files: Sequence[str] = (), force: bool = False) -> Outcome:
        """Take a run back."""
        with store.opened(self.state) as opened:
            plan = rolling_back(opened, run_id, files, force=force)
            return run(plan, opened, lambda _: None, self.log)

    def run(self, plan: Plan) -> Outcome:
        """Make the changes of a plan."""
        with store.opened(self.state) as opened:
            return run(plan, opened, lambda _: None, self.log)

    def contents(self) -> dict[str, bytes]:
        """Return every file's content."""
        return {
            str(path.relative_to(self.root)): path.read_bytes()
            for path in sorted(self.root.rglob("*"))
            if path.is_file()
        }


NEW, NEW_DATA = "etc/new.json", b"a new file\n"


def overriding(host: Host) -> Plan:
    """Return a plan that makes a file where none is."""
    (host.root / NEW).parent.mkdir(exist_ok=True)
    plan = empty("patch")
    add(plan, str(host.root / NEW), store.NOTHING, NEW_DATA, ())
    return plan


def identity(path: Path) -> tuple[object, ...]:
    """Return all of a file that patching must keep."""
    info = os.lstat(path)
    names = os.listxattr(path, follow_symlinks=False)
    attributes = {name: os.getxattr(path, name, follow_symlinks=False) for name in names}
    return (info.st_mode, info.st_uid, info.st_gid, attributes)
