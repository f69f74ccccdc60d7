"""``seccomp-shim denials`` tells what is refused to a process, or that this kernel cannot tell."""

import json

from vm.inside.cell import Cell, Outcome

REDUCED = ("",)

_CODE = """
from shim import abi
from shim.bpf.program import RET_K, answering, encode
from shim.host import libc
deny = answering(abi.AUDIT_ARCH_X86_64, 400, abi.SECCOMP_RET_ERRNO | 1)
libc.set_filter(encode([*deny, (RET_K, 0, 0, abi.SECCOMP_RET_ALLOW)]))
for nr in (400, 400, 401):
    try:
        libc.syscall(nr)
    except OSError:
        pass
"""


def run(cell: Cell) -> Outcome:
    """Have a process that ends at once be refused two calls; a third one no kernel has."""
    command = cell.python(f"exec({_CODE!r})")
    done = cell.run(cell.shim("denials", "--json", "--", *command, site=True))
    if done.returncode == 2:
        outcome = Outcome("no BTF")
        outcome.expect(cell.kernel == "affected", f"{done.stdout}{done.stderr}"[-800:])
        told = "/sys/kernel/btf/vmlinux: the kernel does not tell of its structures"
        return outcome.expect(told in done.stderr, done.stderr[-800:])
    found = {(each["nr"], each["errno"], each["count"]) for each in _denials(done.stdout)}
    outcome = Outcome("2 of 3 refused" if found == {(400, "EPERM", 2)} else "wrong")
    return outcome.expect(found == {(400, "EPERM", 2)}, f"{done.stdout}{done.stderr}"[-800:])


def _denials(text: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(text)["denials"]
    return found
