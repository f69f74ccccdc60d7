"""Today's programs fail under Docker's profile of 2020; ``unknown_calls: enosys`` mends that."""

# The user land's own python3, node, ls, cp, tar and apt-get. What fails without us is exactly what
# is listed here for it, by what it then says; the filters in force differ in these refusals alone.
import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from shim import abi
from shim.bpf.equivalence import VerdictChange, difference
from shim.catalog.native import CALLS
from shim.host.ptrace import installed_filters
from shim.profile.unlisted_calls import unnamed
from vm.inside.cell import BIN, Cell, Outcome
from vm.inside.container import RIGHT, Running, profile_of

VARIANTS = ("runc", "crun")
REDUCED = ("crun",)
EPERM = "Operation not permitted"
# What is said where it fails. glibc makes threads, and processes that system(3) waits for, by
# clone3 since 2.34; it sets modes of files but not of what links lead to by fchmodat2 since 2.39.
SAID = {
    "threads": "can't start new thread",
    "node": "uv_thread_create",
    "apt-get": "Problem executing scripts APT::Update::Post-Invoke",
    "cp": f"cp: setting permissions for 'copy': {EPERM}",
    "tar": f"tar: dir: Cannot change mode to r-xr-xr-x: {EPERM}",
    "ls": f"ls: cannot access '/usr/bin/ls': {EPERM}",
}
URETPROBE, MOUNT, PWRITEV2, FSOPEN, CLONE3, FCHMODAT2 = 335, 165, 328, 430, 435, 452
DENIED, NONE = 1, 38  # EPERM, ENOSYS
# Asked by the program that then starts a thread. Of these a rule of the profile denies fsopen.
ASKED = (MOUNT, FSOPEN, CLONE3, FCHMODAT2)
SECONDS = 120.0  # for a look at a process, emulated on a busy machine
_THREADS = f"""
import ctypes, os, threading
libc = ctypes.CDLL(None, use_errno=True)
for nr in {ASKED}:
    libc.syscall(nr, -1, 0, 0, 0, 0)
    os.write(3, b"call %d %d\\n" % (nr, ctypes.get_errno()))
thread = threading.Thread(target=print, args=("started",))
thread.start()
thread.join()
"""
_NODE = "new (require('worker_threads').Worker)('process.exit(0)', {eval: true})"
# With the hook that Debian's images for Docker have in /etc/apt/apt.conf.d/docker-clean.
_APT = """
Dir::Etc { main "/dev/null"; parts "/dev/null"; sourcelist "/tmp/list"; sourceparts "/dev/null"; };
Dir::State "/tmp/apt"; Dir::State::status "/tmp/status"; Dir::Cache "/tmp/apt";
Acquire::Languages "none";
APT::Update::Post-Invoke { "rm -f /tmp/apt/archives/*.deb || true"; };
"""
_SCRIPT = """
tried() { name=$1; shift; "$@" 3>&1 >/tmp/out 2>&1; echo "$name $?"; cat /tmp/out >&2; }
cd /tmp
echo "$3" >apt.conf
mkdir -p dir/sub taken apt/lists/partial apt/archives/partial repository
chmod 555 dir
printf 'Package: none\\nVersion: 1\\nArchitecture: all\\nFilename: none.deb\\nSize: 1\\n' \
    >repository/Packages
echo 'deb [trusted=yes] file:/tmp/repository ./' >list
: >status
tar -cf dir.tar dir
tried ls sh -c "ls -l /usr/bin/ls && cp /usr/bin/ls file"
if [ "$1" = all ]; then
    tried cp cp -r dir copy
    tried tar tar -C taken -xpf dir.tar
    tried threads python3 -IS -c "$2"
    tried node node -e "$4"
    tried apt-get env APT_CONFIG=/tmp/apt.conf apt-get -q update
fi
: >/ready
until [ -e /go ]; do sleep 0.1; done
exit 42
"""


def run(cell: Cell, runtime: str) -> Outcome:
    """Run all of them under Docker 20.10.0's profile, and with crun ls under an older one."""
    profile = profile_of("20.10.0")
    profile["syscalls"].append(
        {"names": ["fsopen"], "action": "SCMP_ACT_ERRNO", "errnoRet": DENIED}
    )
    cell.install()
    # runc itself says ENOSYS to all above faccessat2 (439), the newest call of this profile.
    above = NONE if runtime == "runc" else DENIED
    failing = {"threads", "node", "apt-get"}
    if runtime == "crun" and cell.stack != "bookworm":  # bookworm's glibc is 2.36
        failing |= {"cp", "tar"}
    names = [each for each in SAID if each in failing]
    names += ["ls (2017)"] * (runtime == "crun")
    outcome = Outcome(f"{', '.join(names)}: fail, then work")
    calls = {MOUNT: DENIED, FSOPEN: DENIED, CLONE3: DENIED, FCHMODAT2: above}
    older = _of_2017(profile) if runtime == "crun" else None
    without = _tried(cell, outcome, runtime, profile, failing, calls)
    if older:
        _tried(cell, outcome, runtime, older, {"ls"})
    with _setting(cell):
        calls |= {CLONE3: NONE, FCHMODAT2: NONE}
        after = _tried(cell, outcome, f"{BIN}/seccomp-shim-{runtime}", profile, set(), calls)
        if older:
            _tried(cell, outcome, runtime, older, set(), hook=True)
    _compare(cell, outcome, profile, without, after)
    return outcome


def _of_2017(profile: dict[str, Any]) -> dict[str, Any]:
    """Return ``profile`` as Docker's was before moby/moby#36417: its newest call is pwritev2."""
    older = copy.deepcopy(profile)
    later = {name for name, nr, _ in CALLS if nr > PWRITEV2}
    for rule in older["syscalls"]:
        rule["names"] = [name for name in rule["names"] if name not in later]
    older["syscalls"] = [rule for rule in older["syscalls"] if rule["names"]]
    return older


@contextmanager
def _setting(cell: Cell) -> Iterator[None]:
    folder = cell.root / "etc/seccomp-shim"
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text("unknown_calls: enosys\n")
    try:
        cell.verb("config")
        yield
    finally:
        for path in folder.glob("config.*"):  # what it was compiled to, too
            path.unlink()


def _tried(
    cell: Cell,
    outcome: Outcome,
    runtime: str,
    profile: dict[str, Any],
    failing: set[str],
    calls: dict[int, int] | None = None,
    *,
    hook: bool = False,
) -> list[bytes]:
    """Run the programs; expect who fails, and the errnos of ``calls``; give the filters in force.

    Without ``calls`` it is ls alone.
    """
    command = ["/bin/sh", "-c", _SCRIPT, "sh", "all" if calls else "ls", _THREADS, _APT, _NODE]
    with Running(cell, runtime, profile, command, hook) as container:
        container.wait_for("ready")
        filters = installed_filters(container.pid(), seconds=SECONDS)
        (container.rootfs / "go").touch()
        code, output, errors = container.end()
    lines = [line.split() for line in output.splitlines()]
    made = {int(line[1]): int(line[2]) for line in lines if line[0] == "call"}
    ends = {line[0]: int(line[1]) for line in lines if line[0] != "call"}
    failed = {name for name, end in ends.items() if end}
    seen = f"{runtime}: {code} {ends} {made} {errors[-800:]}"
    outcome.expect(code == RIGHT and ends.keys() == (SAID.keys() if calls else {"ls"}), seen)
    outcome.expect(failed == failing, f"{failed or 'none'} fail, not {failing or 'none'}: {seen}")
    outcome.expect(made == (calls or {}), f"the calls end with {made}, not {calls or {}}: {seen}")
    for name in failed & failing:
        outcome.expect(SAID[name] in errors, f"{name} fails otherwise: {seen}")
    return filters


def _compare(
    cell: Cell, outcome: Outcome, profile: dict[str, Any], before: list[bytes], after: list[bytes]
) -> None:
    """Expect that EPERM became ENOSYS where no rule names the call, and nothing else differs."""
    outcome.expect(len(before) == len(after) == 1, f"{len(before)} and {len(after)} filters")
    meant = set(unnamed(profile)[0].values())
    found = difference(before[0], after[0])
    wrong = [str(each) for each in found.changes if not _right(cell, meant, each)]
    outcome.expect(found.complete and not wrong, f"more differs: {found.reason} {wrong[:5]}")
    outcome.expect(bool(found.changes), "nothing differs")


def _right(cell: Cell, meant: set[int], change: VerdictChange) -> bool:
    numbers = {nr & ~abi.X32_SYSCALL_BIT for nr in range(change.nr.low, change.nr.high + 1)}
    if change.before != abi.SECCOMP_RET_ERRNO | DENIED or change.condition:
        return False
    if change.after == abi.SECCOMP_RET_ENOSYS:
        return numbers <= meant
    return cell.kills and numbers == {URETPROBE} and change.after == abi.SECCOMP_RET_ALLOW
