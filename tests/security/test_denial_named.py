"""A denial by the call's real name, with runtimes that know the name and with those that do not.

In a view of the host in which the kernel counts as one that lets filters deny the calls.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from security import named
from shim.catalog import kernel_injected
from shim.host import cache
from shim.host.runtimes import knows, libseccomp_version
from support import need
from support.checkout import CHECKOUT
from support.containers import supported
from vm import stacks

_PROGRAM = """
set -eu
mount --make-rprivate /
scratch=$1 tree=$2 probe=$3
shift 3
if [ "$tree" = / ]; then
    root=
else
    mount -t tmpfs none "$scratch"
    mkdir "$scratch/upper" "$scratch/work" "$scratch/root"
    root=$scratch/root
    mount -t overlay overlay \
        -o "lowerdir=$tree,upperdir=$scratch/upper,workdir=$scratch/work" "$root"
    mount -t tmpfs none "$root/run"
    for folder in /proc /sys /dev; do mount --rbind "$folder" "$root$folder"; done
    mkdir -p "$root/$CHECKOUT" "$root/$FOLDER"
    mount --bind "$CHECKOUT" "$root/$CHECKOUT"
    mount --bind "$FOLDER" "$root/$FOLDER"
fi
mkdir -p "$root/run/seccomp-shim"
mount -t tmpfs -o mode=755 none "$root/run/seccomp-shim"
cp "$probe" "$root/run/seccomp-shim/probe.json"
[ "$root" ] || exec "$@"
# A chroot is not enough: what joins the container would find the root of the namespace.
cd "$root"
mkdir -p .old
pivot_root . .old
umount -l .old
exec "$@"
"""
FREE, KILL, DENIED = "ALLOW", "KILL_PROCESS", "ERRNO(1)"


@pytest.mark.parametrize(
    ("suite", "ways"),
    [(None, ("wrapper",)), pytest.param("trixie", named.WAYS, marks=pytest.mark.vm)],
    ids=["here", "trixie"],
)
def test_it_stands_whether_the_runtime_knows_the_name_or_not(
    tmp_path: Path, suite: "str | None", ways: "tuple[str, ...]"
) -> None:
    """Denied in the container and in what joins it, beside a call that is let through."""
    need.kernel(supported(), "containers run here as root on x86-64 only")
    real = {name: need.program(name) for name in ("runc", "crun")}
    stack = next(each for each in stacks.STACKS if each.suite == suite)
    tree = stacks.ready(stack).root if suite else Path("/")
    seen = tried(tmp_path, tree, ways)
    assert len(seen) == 2 * len(ways) * len(named.PROFILES)
    for case, (started, joined) in seen.items():
        name, way, told = case.split(": ")
        aware = stack.knows_uretprobe if suite else knows(libseccomp_version(real[name]), "2.5.6")
        denied = KILL if aware and told == "killed" else DENIED
        uretprobe = FREE if told == "silent" else denied
        assert joined == {"uretprobe": uretprobe, "uprobe": FREE}, case
        expected = {"uretprobe": denied, "uprobe": DENIED} if way == "plain" else joined
        assert started == expected, case


def tried(folder: Path, tree: Path, ways: "tuple[str, ...]") -> dict[str, list[dict[str, str]]]:
    """Run ``security.named`` with the runtimes and the interpreter of ``tree``."""
    facts = cache.facts()
    facts["syscalls"] = {
        name: {"nr": call.numbers["x86_64"], "state": "filtered"}
        for name, call in kernel_injected().items()
    }
    probe, scratch, work = folder / "probe.json", folder / "scratch", folder / "work"
    probe.write_text(json.dumps(facts))
    probe.chmod(0o644)
    for each in (scratch, work):
        each.mkdir()
    python = "/usr/bin/python3" if tree != Path("/") else sys.executable
    within = ["unshare", "--mount", "sh", "-c", _PROGRAM, "sh", str(scratch), str(tree), str(probe)]
    path = "/usr/sbin:/usr/bin:/sbin:/bin"
    done = subprocess.run(
        [*within, python, "-P", named.__file__, str(work), *ways],
        env={"PATH": path, "CHECKOUT": str(CHECKOUT), "FOLDER": str(work)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, list[dict[str, str]]] = json.loads(done.stdout)
    return found
