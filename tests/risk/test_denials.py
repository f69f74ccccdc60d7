"""Refused calls of real processes, told from those that the kernel's own code fails."""

import ctypes
import errno
import mmap
import os
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from shim import abi
from shim.bpf.program import LD_ABS, RET_K, Insns, answering, encode
from shim.host import libc, processes
from shim.host.tracing.refusals import Watch, _Filters
from shim.risk.denials import Denial, Denials
from support import need
from support.filters import ALLOW, JEQ, X86_64

EPERM, ENOSYS = (abi.SECCOMP_RET_ERRNO | each for each in (errno.EPERM, errno.ENOSYS))
NR, OTHER = 400, 401
SETPRIORITY, SETHOSTNAME, PERSONALITY, GETPID = 141, 170, 135, 39


@pytest.fixture(autouse=True)
def _machine() -> None:
    need.root()
    need.kernel(os.uname().machine == "x86_64", "the filters are for x86-64")
    need.kernel(os.path.exists("/sys/kernel/btf/vmlinux"), "this kernel has no BTF")


def answers(value: int, nr: int = NR, arch: int = X86_64) -> bytes:
    """Return a filter that answers ``value`` to one call."""
    return encode([*answering(arch, nr, value), ALLOW])


def by_argument(nr: int, word: int, value: int) -> bytes:
    """Return a filter that answers ``value`` to a call whose first argument is ``word``."""
    insns: Insns = [
        *((LD_ABS, 0, 0, 0), (JEQ, 0, 3, nr), (LD_ABS, 0, 0, 16), (JEQ, 0, 1, word)),
        *((RET_K, 0, 0, value), ALLOW),
    ]
    return encode(insns)


def make(*calls: tuple[int, ...]) -> Callable[[], None]:
    """Return what makes these calls."""

    def work() -> None:
        for nr, *args in calls:
            with suppress(OSError):
                libc.syscall(nr, *args)

    return work


@contextmanager
def watched() -> Iterator[tuple[Denials, Callable[[], list[Denial]]]]:
    """Watch what the children of this test are refused; give it, and what tells what was found."""
    me = os.getpid()

    def found() -> list[Denial]:
        for _ in range(50):  # what is in the ring is there before the child can be waited for
            denials.poll(0)
        return denials.found()

    with Denials(lambda call: "test" if me in call.ancestors else None) as denials:
        yield denials, found


def child(work: Callable[[], object], *programs: bytes) -> int:
    """Run ``work`` in a child under these filters, wait for its end and give its status."""
    pid = os.fork()
    if pid == 0:
        try:
            for program in programs:
                libc.set_filter(program)
            work()
        finally:
            os._exit(0)
    return os.waitpid(pid, 0)[1]


def told(found: list[Denial]) -> set[tuple[int, int | None, int]]:
    """Return number, answer and count of each."""
    return {(each.nr, each.answer, each.count) for each in found}


def test_a_process_that_ends_at_once_is_told_as_any_other() -> None:
    """What a filter refused is counted by call and answer, with program, time and no arguments."""
    with watched() as (_, found):
        child(make((NR,), (NR,), (OTHER,)), answers(EPERM), answers(ENOSYS, OTHER))
        denials = found()
    assert told(denials) == {(NR, EPERM, 2), (OTHER, ENOSYS, 1)}
    for each in denials:
        assert each.program == processes.name(os.getpid())
        assert each.arguments == []
        assert 0 < each.first <= each.last


def test_what_the_kernel_itself_fails_is_no_denial() -> None:
    """EPERM and ENOSYS of calls that the filter lets through are nobody's denial."""

    def work() -> None:
        os.setresuid(65534, 65534, 65534)
        make((SETHOSTNAME, 0, 0), (OTHER,), (NR,))()

    with watched() as (_, found):
        child(work, answers(EPERM))
        assert told(found()) == {(NR, EPERM, 1)}


def test_a_rule_on_arguments_is_asked_with_those_of_the_call() -> None:
    """Of a call that is refused for some arguments those calls are told, with the arguments."""
    high = 0xABCD << 32
    with watched() as (_, found):
        child(
            make((OTHER, 7, 1), (OTHER, 8, 2), (OTHER, 7 | high, 3)),
            by_argument(OTHER, 7, EPERM),
            by_argument(OTHER, 8, ENOSYS),
        )
        denials = found()
    assert told(denials) == {(OTHER, EPERM, 2), (OTHER, ENOSYS, 1)}
    (refused,) = (each for each in denials if each.answer == EPERM)
    assert [args[:2] for args in refused.arguments] == [(7, 1), (7 | high, 3)]


def test_other_errnos_are_seen_once_it_is_known_that_a_filter_gives_them() -> None:
    """An errno other than the usual ones is looked for once such a filter is seen."""
    strange = abi.SECCOMP_RET_ERRNO | errno.EXDEV
    with watched() as (_, found):
        child(make((NR,)), answers(strange))
        assert told(found()) == set()
        child(make((OTHER,)), answers(strange), answers(EPERM, OTHER))
        found()
        child(make((NR,)), answers(strange))
        assert told(found()) == {(NR, strange, 1), (OTHER, EPERM, 1)}


def test_the_filter_that_counts_is_the_one_that_the_kernel_takes() -> None:
    """Of several filters the strictest answer counts, of equal ones the newest."""
    with watched() as (_, found):
        child(make((NR,)), answers(ENOSYS), answers(EPERM))
        child(make((OTHER,)), answers(abi.SECCOMP_RET_TRACE, OTHER), answers(EPERM, OTHER))
        assert told(found()) == {(NR, EPERM, 1), (OTHER, EPERM, 1)}


@pytest.mark.parametrize(
    "action", [abi.SECCOMP_RET_KILL_PROCESS, abi.SECCOMP_RET_KILL_THREAD, abi.SECCOMP_RET_TRAP]
)
def test_who_is_ended_is_told(action: int) -> None:
    """A call that ends the process by SIGSYS is told, though the process is gone."""
    with watched() as (_, found):
        assert os.WTERMSIG(child(make((NR, 1)), answers(action))) == signal.SIGSYS
        (denial,) = found()
    assert (denial.nr, denial.answer, denial.errno, denial.count) == (NR, action, None, 1)


def test_a_thread_that_is_ended_alone_is_told() -> None:
    """KILL_THREAD beside another thread sends no signal, and is told all the same."""

    def work() -> None:
        def end() -> None:
            libc.set_filter(answers(abi.SECCOMP_RET_KILL_THREAD))
            libc.syscall(NR)

        thread = threading.Thread(target=end, daemon=True)
        thread.start()
        number = thread.native_id
        while os.path.exists(f"/proc/self/task/{number}"):
            os.sched_yield()

    with watched() as (_, found):
        assert child(work) == 0
        (denial,) = found()
    assert (denial.nr, denial.answer) == (NR, abi.SECCOMP_RET_KILL_THREAD)


def test_a_call_that_waits_for_a_tracer_which_is_not_there_is_told() -> None:
    """TRACE without a tracer is ENOSYS (kernel/seccomp.c), and told as what it is."""
    with watched() as (_, found):
        child(make((NR,)), answers(abi.SECCOMP_RET_TRACE | 5))
        assert told(found()) == {(NR, abi.SECCOMP_RET_TRACE | 5, 1)}


def test_sigsys_that_somebody_sent_is_no_denial() -> None:
    """A SIGSYS by kill(2) is not seccomp's."""
    with watched() as (_, found):
        child(lambda: os.kill(os.getpid(), signal.SIGSYS), answers(EPERM))
        assert found() == []


def test_calls_of_another_architecture_are_told_as_such() -> None:
    """``int 0x80`` of 64-bit code is a call of i386, whose number means another call."""

    def work() -> None:
        code = mmap.mmap(-1, 4096, prot=7)
        # mov eax, 400; int 0x80; ret
        code.write(b"\xb8" + NR.to_bytes(4, "little") + b"\xcd\x80\xc3")
        at = ctypes.addressof(ctypes.c_char.from_buffer(code))
        ctypes.CFUNCTYPE(ctypes.c_long)(at)()

    with watched() as (_, found):
        child(work, answers(EPERM, arch=abi.AUDIT_ARCH_I386))
        (denial,) = found()
    assert (denial.arch, denial.nr, denial.count) == (abi.AUDIT_ARCH_I386, NR, 1)


def test_only_what_has_a_group_is_counted() -> None:
    """Calls that nobody asked about leave no trace."""
    with Denials(lambda _: None) as denials:
        child(make((NR,)), answers(EPERM))
        denials.poll(0)
        assert denials.found() == []


def test_ten_thousand_denied_and_as_many_failed_are_told_apart() -> None:
    """Denied by number, by argument and by another filter, each counted; what failed is not."""
    made: Counter[int] = Counter()
    rng = random.Random(7)  # noqa: S311 - a test's
    denied: list[tuple[int, ...]] = [
        (NR + rng.randrange(20), rng.randrange(99)) for _ in range(9_000)
    ]
    denied += [(GETPID, 7, rng.randrange(99)) for _ in range(1_000)]
    failed = [(SETHOSTNAME, 0, 0), (GETPID + 1_000_000, 1), (PERSONALITY, 1 << 40), (423, 5)]
    others = [failed[rng.randrange(4)] for _ in range(10_000)]
    calls = denied + others
    rng.shuffle(calls)
    for nr, *_ in denied:
        made[nr] += 1
    filters = [answers(EPERM, nr) for nr in range(NR, NR + 10)]
    filters += [answers(ENOSYS, NR + 10 + each) for each in range(5)]
    body = [part for nr in range(NR + 15, NR + 20) for part in answering(X86_64, nr, EPERM)]
    filters = [encode([*body, ALLOW]), by_argument(GETPID, 7, EPERM), *filters[5:]]
    first = [part for nr in range(NR, NR + 5) for part in answering(X86_64, nr, EPERM)]
    filters.append(encode([*first, ALLOW]))

    def work() -> None:
        os.setresuid(65534, 65534, 65534)
        make(*calls)()

    with watched() as (denials, found):
        pid = os.fork()
        if pid == 0:
            try:
                for program in filters:
                    libc.set_filter(program)
                work()
            finally:
                os._exit(0)
        while os.waitpid(pid, os.WNOHANG) == (0, 0):
            denials.poll(0.05)
        counts = Counter({each.nr: each.count for each in found()})
        assert denials.lost() == 0
    assert counts == made


def test_without_root_it_says_what_it_needs() -> None:
    """Whoever may not trace the kernel is told so, in one line."""
    program = "from shim.risk.denials import Denials; Denials(lambda call: '')"
    found = subprocess.run(
        ["setpriv", "--reuid=65534", "--clear-groups", sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "ShimError: bpf: the kernel refuses it (Operation not permitted)" in found.stderr


def test_a_filter_at_a_freed_ones_address_is_another() -> None:
    """Threads come and go with filters whose memory is used again: each is judged by its own."""

    def work() -> None:
        for program, nr in ((answers(EPERM), NR), (answers(EPERM, OTHER), OTHER)) * 20:
            thread = threading.Thread(
                target=lambda p=program, n=nr: (libc.set_filter(p), make((n,))())
            )
            thread.start()
            thread.join()

    with watched() as (_, found):
        child(work)
        assert told(found()) == {(NR, EPERM, 20), (OTHER, EPERM, 20)}


def test_who_is_refused_without_end_does_not_keep_us() -> None:
    """One look takes what has come when it began; who does not count takes no room from others."""
    with watched() as (denials, _):
        pid = os.fork()
        if pid == 0:
            libc.set_filter(answers(EPERM))
            while True:
                make((NR,))()
        try:
            began = {each.nr for each in denials.poll(1)}
            for _ in range(5):
                denials.poll(0)
            with Denials(lambda _: "x", pid=2) as other:
                for _ in range(5):
                    other.poll(0.01)
                assert other.found() == []
                assert other.lost() == 0
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    assert began <= {NR}


def test_filters_are_kept_up_to_a_limit() -> None:
    """Each content once, and the oldest threads' go when there are too many."""
    kept = _Filters()
    for thread in range(40_000):
        kept.add((thread, 1, 7), 0, bytes(8 * (thread % 5 + 1)))
    assert kept.chain(1, 1, 7) is None
    assert kept.chain(39_999, 1, 7) == (bytes(8 * 5),)
    assert len(kept._found) <= 1 << 14
    assert kept._bytes == 8 * (1 + 2 + 3 + 4 + 5)
    for thread in range(5_000):
        kept.add((thread, 2, 7), 0, thread.to_bytes(4, "little") * 8_000)
    assert kept._bytes <= 64 << 20


def test_a_look_that_is_broken_off_counts_nothing_twice() -> None:
    """What was given is out of the ring, whether or not the next one is asked for."""
    with Watch((errno.EPERM,)) as watch:
        child(make((NR, 1), (NR, 2), (NR, 3)), answers(EPERM))
        seen = []
        for _ in range(1_000):
            event = next(watch.events(), None)  # and the look ends there
            if event and os.getpid() in event.ancestors:
                seen.append(event.args[0])
        assert seen == [1, 2, 3]
