"""Filters to test with: random programs, and the real kernel's answers in a forked child."""

import json
import os
import signal
import time
from collections.abc import Callable
from functools import cache
from typing import Any

from hypothesis import strategies as st

from shim import abi
from shim.bpf.program import (
    JA,
    LD_ABS,
    LD_IMM,
    LD_MEM,
    LDX_IMM,
    LDX_MEM,
    NEG,
    RET_A,
    RET_K,
    TAX,
    TXA,
    Insn,
    Insns,
    encode,
)
from shim.data import directory
from shim.host import libc
from shim.host.ptrace import installed_filters

X86_64 = abi.AUDIT_ARCH_X86_64
ALLOW = (RET_K, 0, 0, abi.SECCOMP_RET_ALLOW)
JEQ = abi.BPF_JMP | abi.BPF_JEQ | abi.BPF_K
JGE = abi.BPF_JMP | abi.BPF_JGE | abi.BPF_K
JGT = abi.BPF_JMP | abi.BPF_JGT | abi.BPF_K
AND = abi.BPF_ALU | abi.BPF_AND | abi.BPF_K

# The words that random programs look at: nr and both halves of two arguments.
WORDS = (0, 4, 5, 6, 7)
CONSTANTS = (0, 1, 2, 31, 32, 33, 337, 338, 423, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)

words = st.sampled_from(CONSTANTS) | st.integers(0, 0xFFFFFFFF)
arguments = st.lists(
    st.builds(lambda high, low: high << 32 | low, words, words), min_size=6, max_size=6
)


def filters_of(pid: int) -> list[bytes]:
    """Return the filters of a live process, once nobody else traces it."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return installed_filters(pid)
        except PermissionError:  # EPERM: it has a tracer (ptrace(2)), which a test comes beside
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def denying(*allowed: int, errno: int = 1) -> bytes:
    """Return a filter that allows the numbers ``allowed`` on x86-64 and answers ``errno`` else."""
    insns: Insns = [(LD_ABS, 0, 0, 4), (JEQ, 1, 0, X86_64), (RET_K, 0, 0, 0), (LD_ABS, 0, 0, 0)]
    for number in allowed:
        insns += [(JEQ, 0, 1, number), ALLOW]
    return encode([*insns, (RET_K, 0, 0, abi.SECCOMP_RET_ERRNO | errno)])


@st.composite
def bodies(draw: st.DrawFn, *, division: bool = True, max_size: int = 20) -> Insns:
    """Draw a program without its return; memory words 0 to 3 are stored first."""
    size = draw(st.integers(0, max_size))
    body: Insns = [(abi.BPF_ST, 0, 0, cell) for cell in range(4)]
    return body + [draw(_instruction(size - place - 1, division)) for place in range(size)]


@cache
def _instruction(left: int, division: bool) -> "st.SearchStrategy[Insn]":
    """Draw one instruction with ``left`` more behind it."""
    operations = [abi.BPF_ADD, abi.BPF_SUB, abi.BPF_MUL, abi.BPF_AND, abi.BPF_OR, abi.BPF_XOR]
    jumps = [abi.BPF_JEQ, abi.BPF_JGT, abi.BPF_JGE, abi.BPF_JSET]
    sources = st.sampled_from((abi.BPF_K, abi.BPF_X))
    shifts = st.sampled_from((abi.BPF_LSH, abi.BPF_RSH))
    cell = st.integers(0, 3)
    hop = st.integers(0, min(left, 255))
    choices: list[st.SearchStrategy[Insn]] = [
        st.builds(lambda word: (LD_ABS, 0, 0, 4 * word), st.sampled_from(WORDS)),
        st.builds(lambda code, k: (code, 0, 0, k), st.sampled_from((LD_IMM, LDX_IMM)), words),
        st.builds(lambda code: (code, 0, 0, 0), st.sampled_from((TAX, TXA, NEG))),
        st.builds(
            lambda code, k: (code, 0, 0, k),
            st.sampled_from((LD_MEM, LDX_MEM, abi.BPF_ST, abi.BPF_STX)),
            cell,
        ),
        st.builds(
            lambda op, source, k: (abi.BPF_ALU | op | source, 0, 0, k),
            st.sampled_from(operations),
            sources,
            words,
        ),
        st.builds(lambda op, k: (abi.BPF_ALU | op, 0, 0, k), shifts, st.integers(0, 31)),
        st.builds(lambda op: (abi.BPF_ALU | op | abi.BPF_X, 0, 0, 0), shifts),
        st.builds(
            lambda op, source, jt, jf, k: (abi.BPF_JMP | op | source, jt, jf, k),
            st.sampled_from(jumps),
            sources,
            hop,
            hop,
            words,
        ),
        st.builds(lambda k: (JA, 0, 0, k), hop),
    ]
    if division:
        divide = abi.BPF_ALU | abi.BPF_DIV
        choices.append(st.builds(lambda k: (divide, 0, 0, k or 1), words))
        choices.append(st.just((divide | abi.BPF_X, 0, 0, 0)))
    return st.one_of(choices)


def observed(body: Insns, shift: int) -> Insns:
    """End ``body`` so that twelve bits of A, from bit ``shift`` on, become an errno."""
    return [
        *body,
        (abi.BPF_ALU | abi.BPF_RSH, 0, 0, shift),
        (AND, 0, 0, 0x7FF),
        (abi.BPF_ALU | abi.BPF_OR, 0, 0, abi.SECCOMP_RET_ERRNO),
        (RET_A, 0, 0, 0),
    ]


def guarded(insns: Insns) -> Insns:
    """Let all but the unassigned numbers pass, so that the child of ``ask`` can do its work."""
    return [
        (LD_ABS, 0, 0, 0),
        (JGE, 0, 1, abi.TEST_SYSCALLS.start),
        (JGE, 0, 1, abi.TEST_SYSCALLS.stop),
        ALLOW,
        (LD_IMM, 0, 0, 0),
        *insns,
    ]


def in_child(work: Callable[[], Any]) -> Any:
    """Return the JSON value of ``work``, run in a forked child; minus the signal that ended it."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, json.dumps(work()).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        data = pipe.read()
    _, status = os.waitpid(child, 0)
    return json.loads(data) if data else -os.WTERMSIG(status)


def ask(program: bytes, nr: int, args: "list[int] | tuple[int, ...]" = ()) -> int:
    """Load ``program`` in a child and make one call: its errno, 0, or minus the child's signal."""

    def call() -> int:
        load(program)
        signed = [value - (1 << 64) if value >> 63 else value for value in args]
        try:
            libc.syscall(nr, *signed)
        except OSError as error:
            return error.errno or 0
        return 0

    return int(in_child(call))


def shipped() -> dict[str, Any]:
    """Return the Docker profile that comes with the project."""
    text = (directory("profiles") / "docker" / "default.json").read_text()
    profile: dict[str, Any] = json.loads(text)
    return profile


def load(program: bytes) -> None:
    """Install ``program`` here; without privilege the kernel wants no_new_privs first."""
    if os.geteuid():
        libc.prctl(abi.PR_SET_NO_NEW_PRIVS, 1)
    libc.set_filter(program)


SIGSYS = -signal.SIGSYS
