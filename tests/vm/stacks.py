"""The user lands: the machine's own Debian 12, and trees of newer Debians made by mmdebstrap."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from vm import cache, debian
from vm.errors import LabError

# What the cases call. linux-perf and bpftrace are Debian's own of each suite.
PACKAGES = (
    *("runc", "crun", "linux-perf", "bpftrace", "python3", "nodejs"),
    *("docker.io", "docker-cli", "docker-compose", "containerd", "podman", "uidmap"),
    *("python3-docker", "python3-grpcio", "python3-structlog", "python3-yaml"),
)
# What a reader wants to know the version of.
TOLD = (
    *("runc", "crun", "libseccomp2", "linux-perf", "bpftrace"),
    *("docker.io", "containerd", "podman"),
)


@dataclass(frozen=True)
class Stack:
    """A user land of the matrix; ``suite`` None is the machine's own root."""

    name: str
    suite: str | None
    knows_uretprobe: bool  # its libseccomp resolves the name

    @property
    def release(self) -> str:
        """Return the name of its Debian release."""
        return self.suite or "bookworm"


@dataclass(frozen=True)
class Tree:
    """A user land ready to use: its root directory and the versions of what matters in it."""

    root: Path
    versions: dict[str, str]


STACKS = (
    Stack("bookworm", None, knows_uretprobe=False),
    Stack("trixie", "trixie", knows_uretprobe=True),
    Stack("sid", "sid", knows_uretprobe=True),
)


def ready(stack: Stack) -> Tree:
    """Return the tree of ``stack``, made if it is not in the cache."""
    root = Path("/") if stack.suite is None else _tree(stack.suite)
    return Tree(root, _versions(root))


def root_if_there(stack: Stack) -> Path | None:
    """Return the root directory of ``stack`` without making it; None: it is not in the cache."""
    if stack.suite is None:
        return Path("/")
    trees = cache.root().glob(f"stacks/{stack.suite}-*/root")
    return max(trees, key=lambda root: root.parent.stat().st_mtime, default=None)


def _tree(suite: str) -> Path:
    versions = debian.versions(suite, PACKAGES)
    name = f"{suite}-{cache.key(*sorted(f'{n}={v}' for n, v in versions.items()))}"

    def build(work: Path) -> None:
        print(f"lab: making a Debian {suite} tree", flush=True)
        command = ["mmdebstrap", "--mode=root", "--variant=minbase", "--quiet"]
        command += ["--aptopt=Apt::Install-Recommends false", "--aptopt=Acquire::Retries 3"]
        command += [f"--aptopt=Acquire::Check-Valid-Until {debian.check_valid_until()}"]
        command += [
            "--dpkgopt=path-exclude=/usr/share/doc/*",
            "--dpkgopt=path-exclude=/usr/share/man/*",
        ]
        command += [f"--include={','.join(PACKAGES)}", suite, str(work / "root"), "-"]
        done = subprocess.run(
            command, input=debian.sources(suite), capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise LabError(f"mmdebstrap {suite} failed: {done.stderr.strip()[-800:]}")
        shutil.rmtree(work / "root/var/cache/apt", ignore_errors=True)

    return cache.built("stacks", name, build) / "root"


def compile_for(trees: list[Tree], code: Path) -> None:
    """Compile the modules below ``code`` for the Python of each of ``trees`` and of this machine.

    A guest would do it, too, but emulated. By its modification time a compiled module is known to
    be of its source, so copies must keep that.
    """
    script = 'mount --bind "$1" "$2/mnt" && chroot "$2" /usr/bin/python3 -ISm compileall -q /mnt'
    for root in {Path("/"), *(tree.root for tree in trees)}:
        command = ["unshare", "--mount", "sh", "-c", script, "sh", str(code), str(root)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise LabError(f"cannot compile {code} in {root}: {done.stdout}{done.stderr}")


def _versions(root: Path) -> dict[str, str]:
    done = subprocess.run(
        [
            "dpkg-query",
            f"--admindir={root}/var/lib/dpkg",
            "-W",
            "-f=${Package} ${Version}\n",
            *TOLD,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    found = dict(line.split() for line in done.stdout.splitlines() if " " in line.strip())
    missing = [name for name in TOLD if name not in found]
    if missing:
        raise LabError(f"{root} lacks {' '.join(missing)}: apt-get install {' '.join(missing)}")
    return {name: found[name] for name in TOLD}
