"""What the guests are given of this tree: the code under test and the cases. And its proof."""

import datetime
import hashlib
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from vm.errors import LabError

CHECKOUT = Path(__file__).resolve().parents[2]
PROOF = CHECKOUT / "docs" / "proof.md"
PARTS = ("shim", "hooks", "profiles", "tests/vm", "tests/support/cri.py")
# What is in these directories and decides nothing in a guest.
LEFT_OUT = ("__pycache__", "proof.md.in", "test_*.py")
# How much later than the proof the code may be, until the whole matrix must be run again.
DAYS = 14
_SAID = re.compile(r"on (\d{4}-\d\d-\d\d) of commit (\w{12}), sources (\w{16}):")


@dataclass(frozen=True)
class Made:
    """When docs/proof.md was made, and of what."""

    date: datetime.date
    commit: str
    digest: str


def copy(tree: Path) -> None:
    """Copy it to the new directory ``tree``."""
    for part in PARTS:
        source, target = CHECKOUT / part, tree / part
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns(*LEFT_OUT))
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)


def digest(checkout: Path = CHECKOUT) -> str:
    """Return a short digest of it: names and contents."""
    total = hashlib.sha256()
    for part in PARTS:
        top = checkout / part
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            inside = path.relative_to(checkout)
            left_out = any(Path(name).match(one) for name in inside.parts for one in LEFT_OUT)
            if path.is_file() and not left_out:
                data = path.read_bytes()
                total.update(f"{inside}\0{len(data)}\0".encode() + data)
    return total.hexdigest()[:16]


def commit() -> str:
    """Return the commit that is checked out, with ``+`` where what is given differs from it."""
    short = _git("rev-parse", "--short=12", "HEAD")
    return short + ("+" if _git("status", "--porcelain", "--", *PARTS) else "")


def made(proof: str) -> Made:
    """Read from the text of docs/proof.md when it was made, and of what."""
    found = _SAID.search(proof)
    if found is None:
        raise LabError("docs/proof.md does not say of which commit it is")
    return Made(datetime.date.fromisoformat(found[1]), found[2], found[3])


def stale(proof: Made, now: str, day: datetime.date, *, released: bool) -> str:
    """Return why ``proof`` does not speak for the code any more; empty if it does.

    ``now`` is the digest of the code, ``day`` when it was committed. Each run of CI proves the code
    as it is, on a sample that covers the matrix; the whole of it may be behind for some time, but
    not in a release.
    """
    late = (day - proof.date).days
    if proof.digest == now or (late <= DAYS and not released):
        return ""
    which = "a release" if released else f"code that is {late} days younger, {DAYS} at most,"
    return (
        f"docs/proof.md is of {proof.commit} ({proof.date}): {which} needs a proof of its own. "
        "Commit all, run `sudo tests/vm/run --write-proof` (40 minutes), commit docs/proof.md."
    )


def _git(*words: str) -> str:
    done = subprocess.run(
        ["git", "-c", f"safe.directory={CHECKOUT}", *words],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise LabError(f"git {words[0]}: {done.stderr.strip()}")
    return done.stdout.strip()
