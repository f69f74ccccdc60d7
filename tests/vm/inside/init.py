"""The guest's second PID 1: the rest of the mounts, then the cells, then power off.

Started by kernel/init as ``/usr/bin/python3 -IS``, on a throw-away layer over the host's root. The
directory /run/lab is shared with the host: plan.json comes in, results.jsonl and what is kept go
out.
"""

import ctypes
import json
import os
import shutil
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

LAB = Path("/run/lab")
TREE = Path("/run/tree")
SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_RB_AUTOBOOT = 0x01234567


def main() -> None:
    """Run the plan, or a shell where the plan asks for one."""
    os.environ.clear()
    os.environ.update(PATH=SYSTEM_PATH, HOME="/root", LC_ALL="C.UTF-8", TERM="linux")
    os.umask(0o022)
    mount_kernel_filesystems()
    (LAB / "release").write_text(os.uname().release)
    TREE.mkdir()  # off the share, which is slow: it is read many times
    subprocess.run(["tar", "-xf", LAB / "tree.tar", "-C", TREE], check=True)
    sys.path[:0] = [str(TREE / "tests"), str(TREE)]
    plan = json.loads((LAB / "plan.json").read_text())
    places = {s["name"]: prepare_stack(s["name"], s["root"]) for s in plan["stacks"]}
    if plan["shell"]:
        shell(places)
        return
    from vm.inside.cell import run_cell

    with (LAB / "results.jsonl").open("a") as results:
        for stack in plan["stacks"]:
            for case in plan["cases"]:
                outcome = run_cell(plan["kernel"], stack, places[stack["name"]], case)
                results.write(json.dumps(outcome) + "\n")
                results.flush()
                print("lab:", stack["name"], case, outcome["told"], *outcome["wrong"], flush=True)


def mount_kernel_filesystems() -> None:
    """Mount what a container engine expects of a booted system."""
    Path("/dev/pts").mkdir(exist_ok=True)
    Path("/dev/shm").mkdir(exist_ok=True)
    mounts = [
        ("cgroup2", "/sys/fs/cgroup", ""),
        ("tracefs", "/sys/kernel/tracing", ""),
        ("devpts", "/dev/pts", "ptmxmode=0666"),
        ("tmpfs", "/dev/shm", ""),
        ("tmpfs", "/tmp", ""),
    ]
    for kind, place, options in mounts:
        subprocess.run(["mount", "-t", kind, "-o", options or "rw", kind, place], check=True)
    for link, target in {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1"}.items():
        if not Path("/dev", link).is_symlink():
            Path("/dev", link).symlink_to(target)


def prepare_stack(name: str, tree: str) -> tuple[Path, int]:
    """Mount a writable layer over the stack's tree; give its root, and the pid of its keeper."""
    root, layer = Path("/run/stacks") / name, Path("/run/layer/stacks") / name
    for folder in (root, layer / "upper", layer / "work"):
        folder.mkdir(parents=True)
    layers = f"lowerdir=/run/host{tree.rstrip('/')},upperdir={layer}/upper,workdir={layer}/work"
    subprocess.run(["mount", "-t", "overlay", "-o", layers, "overlay", root], check=True)
    for place in ("proc", "sys", "dev"):
        subprocess.run(["mount", "--rbind", f"/{place}", root / place], check=True)
    for place in ("run", "tmp"):
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", root / place], check=True)
    (root / "run/lab/tree").mkdir(parents=True)
    subprocess.run(["mount", "--bind", TREE, root / "run/lab/tree"], check=True)
    shutil.copytree(LAB / "bin", root / "run/lab/bin")
    shutil.rmtree(root / "var/log/seccomp-shim", ignore_errors=True)
    shutil.rmtree(root / "etc/seccomp-shim", ignore_errors=True)
    (root / "var/log/seccomp-shim").mkdir(parents=True)
    return root, keep(root)


def keep(root: Path) -> int:
    """Start a process in a mount namespace whose root is ``root``; give its pid.

    A changed root (chroot) would not do: who joins a container's mount namespace, as exec does,
    gets that namespace's own root, and pivot_root leaves that alone where it is not the caller's.
    """
    script = (
        'mkdir "$1/run/old" && pivot_root "$1" "$1/run/old" && cd / && umount --lazy /run/old'
        " && rmdir /run/old && echo kept && exec sleep infinity"
    )
    process = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", script, "sh", root], stdout=subprocess.PIPE
    )
    if process.stdout is None or process.stdout.readline() != b"kept\n":
        raise RuntimeError(f"no mount namespace for {root}")
    return process.pid


def shell(places: dict[str, tuple[Path, int]]) -> None:
    """Give the terminal to a shell in the only stack, or in the guest's own root."""
    keepers = [str(keeper) for _, keeper in places.values()]
    where = ["nsenter", "--mount", "--target", keepers[0]] if len(keepers) == 1 else []
    print(f"lab: the stacks are {', '.join(places)}; exit powers off", flush=True)
    subprocess.run(["setsid", "--ctty", *where, "bash", "-l"], check=False)


def power_off() -> None:
    """End the machine: QEMU is told not to begin anew, and our kernel knows no other end."""
    os.sync()
    ctypes.CDLL(None).reboot(_RB_AUTOBOOT)


def run() -> Any:
    """Run ``main`` and power off whatever happens."""
    try:
        main()
    except BaseException:
        traceback.print_exc()
    finally:
        power_off()


if __name__ == "__main__":
    run()
