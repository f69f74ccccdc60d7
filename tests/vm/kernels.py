"""The kernels: one that kills, built here, and Debian's own as they are."""

import lzma
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vm import cache, debian
from vm.errors import LabError

HERE = Path(__file__).parent
SOURCE = "linux-source-6.12"
# What a stock kernel must load to mount the shared root: 9p, its transport, overlay.
MODULES = ("virtio_pci", "9pnet_virtio", "9p", "overlay")


@dataclass(frozen=True)
class Kernel:
    """A kernel of the matrix; ``state`` is what ``seccomp-shim probe`` must say of uretprobe."""

    name: str
    suite: str
    state: str
    told: str
    ours: bool = False


@dataclass(frozen=True)
class Image:
    """A kernel ready to boot: version of its package, bzImage, modules in load order."""

    version: str
    bzimage: Path
    modules: tuple[Path, ...]


KERNELS = (
    Kernel("affected", "bookworm", "filtered", "6.12 without the fix, built by the lab", ours=True),
    Kernel("absent", "bookworm", "absent", "Debian 12's own"),
    Kernel("exempt", "trixie", "exempt", "Debian 13's own"),
    Kernel("newest", "sid", "exempt", "Debian sid's own"),
)


def ready(kernel: Kernel) -> Image:
    """Return the image of ``kernel``, built or downloaded if it is not in the cache."""
    return _affected() if kernel.ours else _stock(kernel)


def _affected() -> Image:
    packages = debian.versions("bookworm", (SOURCE,))
    version = packages[SOURCE]
    config = HERE / "kernel" / "affected.config"
    patch = HERE / "kernel" / "affected.patch"
    name = f"affected-{cache.key(version, config.read_bytes(), patch.read_bytes())}"

    def build(work: Path) -> None:
        print(f"lab: building the affected kernel from {SOURCE} {version}: minutes", flush=True)
        (deb,) = debian.download("bookworm", packages, work / "deb")
        _shell(f"dpkg-deb --fsys-tarfile {deb} | tar -xO ./usr/src/{SOURCE}.tar.xz | tar -xJ", work)
        tree = work / SOURCE
        _shell(f"patch -p1 < {patch}", tree)
        _shell(
            f"make tinyconfig && scripts/kconfig/merge_config.sh -m .config {config}"
            f" && make olddefconfig && make -j{os.cpu_count()} bzImage",
            tree,
        )
        _demand(config.read_text(), (tree / ".config").read_text())
        (tree / "arch/x86/boot/bzImage").rename(work / "bzImage")
        (tree / ".config").rename(work / "config")
        shutil.rmtree(tree)
        shutil.rmtree(work / "deb")

    return Image(version, cache.built("kernels", name, build) / "bzImage", ())


def _demand(wanted: str, got: str) -> None:
    """Fail if Kconfig dropped something that ``wanted`` asks for."""
    lines = set(got.splitlines())
    asked = [w for w in wanted.splitlines() if w.startswith("CONFIG_") and not w.endswith("=n")]
    dropped = [w for w in asked if w not in lines]
    if dropped:
        raise LabError(f"Kconfig dropped {' '.join(dropped)} from kernel/affected.config")


def _stock(kernel: Kernel) -> Image:
    packages = debian.kernel_packages(kernel.suite)
    inputs = (*MODULES, *sorted(f"{n}={v}" for n, v in packages.items()))
    name = f"{kernel.name}-{cache.key(*inputs)}"

    def build(work: Path) -> None:
        print(f"lab: downloading Debian {kernel.suite}'s kernel", flush=True)
        for deb in debian.download(kernel.suite, packages, work / "deb"):
            _shell(f"dpkg-deb --extract {deb} {work}/tree", work)
        shutil.rmtree(work / "deb")
        # The image is in /boot or, since 7.x, beside the modules; these are in /lib or /usr/lib.
        _only(work / "tree", "**/vmlinuz*").rename(work / "bzImage")
        modules = _only(work / "tree", "**/modules/*/kernel").parent
        for index, module in enumerate(_closure(modules, MODULES)):
            (work / f"{index:02}-{module.name.split('.ko')[0]}.ko").write_bytes(_plain(module))
        shutil.rmtree(work / "tree")

    place = cache.built("kernels", name, build)
    return Image(max(packages.values()), place / "bzImage", tuple(sorted(place.glob("*.ko"))))


def _only(tree: Path, pattern: str) -> Path:
    found = list(tree.glob(pattern))
    if len(found) != 1:
        raise LabError(f"the kernel's packages have {len(found)} of {pattern}, 1 expected")
    return found[0]


def _closure(tree: Path, wanted: tuple[str, ...]) -> Iterator[Path]:
    """Yield the files of ``wanted`` and all they depend on, in load order; built-in ones not.

    A .deb has no modules.dep, which depmod writes at installation: each module's own .modinfo
    section says the same.
    """
    files = {_module_name(p): p for p in tree.glob("**/*.ko*")}
    loaded: set[str] = set()

    def load(name: str) -> Iterator[Path]:
        if name in loaded or name not in files:
            return
        loaded.add(name)
        found = re.search(rb"\0depends=([^\0]*)\0", _plain(files[name]))
        for dependency in found[1].decode().split(",") if found and found[1] else ():
            yield from load(dependency.replace("-", "_"))
        yield files[name]

    for name in wanted:
        yield from load(name)


def _module_name(path: Path) -> str:
    return path.name.split(".ko")[0].replace("-", "_")


def _plain(module: Path) -> bytes:
    data = module.read_bytes()
    return lzma.decompress(data) if module.suffix == ".xz" else data


def _shell(script: str, folder: Path) -> None:
    log = folder / "build.log"
    with log.open("ab") as out:
        # Our own script with our own paths: S602 warns of a user's input in it.
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=folder,
            stdout=out,
            stderr=out,
            check=False,
        )
    if done.returncode:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise LabError(f"`{script}` failed in {folder}; the end of build.log:\n{tail}")
