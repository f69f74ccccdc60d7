"""The cache of the probe's verdict: kept for a boot, and believed only if root wrote it."""

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from shim.host import cache, probe
from support import need
from support.isolated import gained, isolated

CALLS = {"uretprobe": 335, "uprobe": 336}


def test_the_verdict_is_kept_for_the_boot(tmp_path: Path) -> None:
    """The second time nothing is asked: the same document comes from the file."""
    need.root()
    tmp_path.chmod(0o755)
    first = cache.facts(directory=str(tmp_path))
    kept = tmp_path / "probe.json"
    document = json.loads(kept.read_text())
    assert document == first
    assert kept.stat().st_mode & 0o777 == 0o644
    document["kernel"]["release"] = "from the file"
    kept.write_text(json.dumps(document))
    assert cache.facts(directory=str(tmp_path))["kernel"]["release"] == "from the file"
    assert cache.facts(directory=str(tmp_path), fresh=True) == first


def spoil(kept: Path, how: str) -> None:
    """Make the cache file one that must not be believed."""
    document = json.loads(kept.read_text())
    document["kernel"]["release"] = "spoilt"
    if how == "boot":
        document["kernel"]["boot_id"] = "00000000-0000-0000-0000-000000000000"
    elif how == "calls":
        del document["syscalls"]["uprobe"]
    elif how == "state":
        document["syscalls"]["uprobe"]["state"] = "fine"
    elif how == "shape":
        document["syscalls"] = [document["syscalls"]]
    kept.write_text(json.dumps(document))
    if how == "truncated":
        kept.write_text(kept.read_text()[:-5])
    elif how == "empty":
        kept.write_text("")
    elif how == "owner":
        os.chown(kept, 65534, 65534)
    elif how == "mode":
        kept.chmod(0o666)
    elif how == "symlink":
        kept.rename(kept.with_name("other.json"))
        kept.symlink_to("other.json")
    elif how == "fifo":
        kept.unlink()
        os.mkfifo(kept)
    elif how == "folder owner":
        os.chown(kept.parent, 65534, 65534)
    elif how == "folder mode":
        kept.parent.chmod(0o777)


SPOILS = (
    "boot", "calls", "state", "shape", "truncated", "empty", "owner", "mode", "symlink", "fifo",
    "folder owner", "folder mode",
)  # fmt: skip


@pytest.mark.parametrize("how", SPOILS)
def test_a_cache_not_to_be_believed_is_ignored(tmp_path: Path, how: str) -> None:
    """Damaged, foreign or of another boot: the kernel is asked again."""
    need.root()
    tmp_path.chmod(0o755)
    first = cache.facts(directory=str(tmp_path))
    spoil(tmp_path / "probe.json", how)
    assert cache.facts(directory=str(tmp_path)) == first


def test_an_unwritable_folder_is_no_error() -> None:
    """Where nothing can be kept the verdict is the same."""
    assert cache.facts(directory="/proc/none")["syscalls"] == probe.probe(CALLS)


def test_an_unusable_place_costs_nothing_but_time(tmp_path: Path) -> None:
    """A file where the directory should be, or a link to a directory, is left as it is."""
    need.root()
    tmp_path.chmod(0o755)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "real").mkdir(mode=0o755)
    (tmp_path / "link").symlink_to("real")
    for name in ("file", "link"):
        assert cache.facts(directory=str(tmp_path / name))["syscalls"] == probe.probe(CALLS)
    assert (tmp_path / "file").read_text() == "mine"
    assert list((tmp_path / "real").iterdir()) == []


def test_the_folder_is_made_for_everybody_to_read_and_root_to_write(tmp_path: Path) -> None:
    """Whatever the umask, directory and file get the modes that make them believed and readable."""
    need.root()
    folder = tmp_path / "run"
    old = os.umask(0o077)
    try:
        cache.facts(directory=str(folder))
    finally:
        os.umask(old)
    assert folder.stat().st_mode & 0o777 == 0o755
    made = {(f.name, f.stat().st_mode & 0o777) for f in folder.iterdir()}
    assert {("probe.json", 0o644)} <= made <= {("probe.json", 0o644), ("idle", 0o644)}


@pytest.fixture
def public() -> Iterator[Path]:
    """Yield a directory that everybody can get to, as /run is; pytest's own are private."""
    with tempfile.TemporaryDirectory(prefix="shim-test-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


def test_an_ordinary_user_reads_what_root_kept_and_keeps_nothing(public: Path) -> None:
    """Without privilege the kept verdict is used, and a verdict of one's own is not kept."""
    need.root()
    kept, own = public / "probe.json", public / "own"
    document = cache.facts(directory=str(public))
    document["kernel"]["release"] = "kept by root"
    kept.write_text(json.dumps(document))
    own.mkdir()
    os.chown(own, 65534, 65534)
    code = f"""
import json, os
from shim.host.cache import facts
facts(fresh=True, directory="/proc/none")  # imports all, while the checkout can be read
os.setgid(65534); os.setuid(65534)
found = [facts(directory=folder) for folder in {[str(public), str(own)]}]
print(json.dumps([one["kernel"]["release"] for one in found]))
"""
    assert isolated(code) == ["kept by root", os.uname().release]
    assert list(own.iterdir()) == []


def test_unknown_is_not_kept(tmp_path: Path) -> None:
    """Inside a filter that hides the answer nothing is written, so that the next may find out."""
    need.root()
    need.kernel(os.uname().machine == "x86_64", "this is not x86-64")
    tmp_path.chmod(0o755)
    code = f"""
import json
from shim import abi
from shim import injected
from shim.host import cache, libc, probe
libc.prctl(abi.PR_SET_NO_NEW_PRIVS, 1)
libc.set_filter(probe._denying(400))
injected.X86_64 = {{"test_syscall": 400}}
print(json.dumps(cache.facts(directory={str(tmp_path)!r})))
"""
    assert isolated(code)["syscalls"]["test_syscall"]["state"] == "unknown"
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written_whole_is_not_kept(tmp_path: Path) -> None:
    """Where a write is cut short (file size limit) no half file and no draft stays behind."""
    need.root()
    tmp_path.chmod(0o755)
    code = f"""
import json, resource, signal
from shim import atomic  # now: it would be compiled under the limit, and the half of that kept
from shim.host import cache
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
print(json.dumps(cache.facts(directory={str(tmp_path)!r})["syscalls"]))
"""
    assert isolated(code) == probe.probe(CALLS)
    kept = {file.name for file in tmp_path.iterdir()}
    assert kept <= {"idle"}  # short enough for the limit


# The last three are imported for the settings and the log of every start as well.
START = {
    "shim", "shim.injected", "shim.host", "shim.startjson", "shim.files",
    "shim.lightos", "errno",
}  # fmt: skip
# What the interpreter itself needs to find files and read JSON.
BASE = {"_json", "_stat"}
PROBING = {
    "shim.abi", "shim.errors", "shim.host.libc", "shim.host.probe", "shim.bpf",
    "shim.bpf.program",
    "shim.host.lightctypes", "_ctypes", "_struct", "errno",
    "os", "stat", "posixpath", "genericpath", "os.path", "_collections_abc", "abc", "_abc",
}  # fmt: skip
ASKING = {"shim.host.children", "select", "time"}


def test_reading_the_cache_imports_next_to_nothing(tmp_path: Path) -> None:
    """What every container start imports for a kernel that needs nothing, named one by one."""
    need.root()
    tmp_path.chmod(0o755)
    cache.facts(directory=str(tmp_path))
    code = f"from shim.host.cache import facts\nfacts(directory={str(tmp_path)!r})"
    assert gained(code) <= START | BASE | {"shim.host.cache"}


def test_probing_imports_the_c_library_and_no_more() -> None:
    """The first container after a boot pays for ctypes, later ones for nothing."""
    code = "from shim.host.cache import facts\nfacts(fresh=True, directory='/proc/none')"
    assert gained(code) <= START | BASE | PROBING | {"shim.host.cache"}


def test_asking_a_runtime_imports_no_subprocess() -> None:
    """Starting the runtime and waiting for its answer takes C modules only."""
    code = "from shim.host.runtimes import libseccomp_version as v\nv('/bin/true', '/proc/none')"
    assert gained(code) <= START | BASE | ASKING | {"shim.host.cache", "shim.host.runtimes"}
