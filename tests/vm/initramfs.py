"""An initramfs of our own: busybox, the modules that reach the shared root, one script."""

import gzip
from pathlib import Path

from vm import cache
from vm.errors import LabError

INIT = Path(__file__).parent / "kernel" / "init"
BUSYBOX = Path("/bin/busybox")  # busybox-static
_S_IFREG, _S_IFDIR = 0o100000, 0o040000


def ready(modules: tuple[Path, ...]) -> Path:
    """Return an initramfs that loads ``modules`` in this order."""
    if not BUSYBOX.is_file():
        raise LabError("busybox is not installed: apt-get install busybox-static")
    files = {"init": INIT.read_bytes(), "bin/busybox": BUSYBOX.read_bytes()}
    files |= {f"modules/{m.name}": m.read_bytes() for m in modules}
    parts = [part for name, data in files.items() for part in (name, data)]

    def build(work: Path) -> None:
        (work / "initramfs.gz").write_bytes(gzip.compress(archive(files), 1, mtime=0))

    return cache.built("initramfs", cache.key(*parts), build) / "initramfs.gz"


def archive(files: dict[str, bytes]) -> bytes:
    """Make a cpio archive (newc, Documentation/driver-api/early-userspace/buffer-format.rst)."""
    folders = sorted({str(p) for name in files for p in Path(name).parents} - {"."})
    out = [_entry(folder, _S_IFDIR | 0o755, b"") for folder in [*folders, "dev"]]
    # The kernel opens /dev/console for PID 1 before any devtmpfs is mounted.
    out.append(_entry("dev/console", 0o020600, b"", device=(5, 1)))
    out += [_entry(name, _S_IFREG | 0o755, data) for name, data in files.items()]
    return b"".join([*out, _entry("TRAILER!!!", 0, b"")])


def _entry(name: str, mode: int, data: bytes, device: tuple[int, int] = (0, 0)) -> bytes:
    path = name.encode() + b"\0"
    numbers = (0, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(path), 0)
    head = b"070701" + b"".join(b"%08X" % n for n in numbers)
    return _padded(head + path) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
