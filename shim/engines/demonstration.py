"""The main job on a tiny container: without the hook and with it, measured on the live process."""

import errno
import json
import os
import shlex
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shim import abi, configfile, data
from shim.bpf import equivalence
from shim.bpf import program as bpf
from shim.bpf.outcomes import names, outcomes
from shim.catalog import kernel_injected
from shim.engines import oci
from shim.engines.registration import hookfile
from shim.errors import ShimError, counted
from shim.host.cache import facts
from shim.host.ptrace import installed_filters
from shim.host.runtimes import numbers
from shim.host.untrusted_files import secure
from shim.profile import docker


@dataclass(frozen=True)
class DemoCall:
    """The call that the demonstration is about: the real one, or a test syscall in its place."""

    name: str
    nr: int
    state: str

    @property
    def test_syscall(self) -> bool:
        """Tell whether a number that no kernel has stands in."""
        return self.nr in abi.TEST_SYSCALLS


@dataclass(frozen=True)
class Shown:
    """What happened with one runtime, as lines to print."""

    lines: list[str]
    good: bool


def choose_call() -> DemoCall:
    """Take uretprobe where this kernel lets filters deny it, else a test syscall number."""
    state = str(facts()["syscalls"]["uretprobe"]["state"])
    if state == "filtered":
        return DemoCall("uretprobe", kernel_injected()["uretprobe"].numbers["x86_64"], state)
    return DemoCall("test_syscall", 400, state)


def introduction(subject: DemoCall) -> list[str]:
    """Say what will be shown, and why with that number."""
    lines = [f"Kernel {os.uname().release}: uretprobe is {subject.state}."]
    if subject.test_syscall:
        lines += [
            "This kernel does not kill containers over uretprobe, so a number that no kernel has",
            f"stands in for it: {subject.nr}. Denied it gives EPERM, let through ENOSYS.",
        ]
    else:
        lines += ["A container whose profile does not name it dies when somebody attaches one."]
    return lines


def demonstrate(runtime: str, subject: DemoCall) -> Shown:
    """Run the container both ways under ``runtime`` and compare what is really installed."""
    with tempfile.TemporaryDirectory(prefix="seccomp-shim-demo-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        profile = docker_default()
        before, seen_before = _observe(runtime, directory / "without", profile, subject, {})
        log = directory / "audit.jsonl"
        given = hooks(directory, log, subject.nr if subject.test_syscall else 0)
        after, seen_after = _observe(runtime, directory / "with", profile, subject, given)
        entry = _last_line(log)
    difference = equivalence.difference(before, after)
    rows = [
        ("", "without the hook", "with the hook"),
        ("filter in the process", _length(before), _length(after)),
        (f"verdict for {subject.nr}", _verdict(before, subject), _verdict(after, subject)),
        (f"calling {subject.nr} gave", seen_before, seen_after),
    ]
    proof = [f"  {change}" for change in difference.changes]
    good = (
        difference.complete
        and [(c.arch.single, c.nr.single, c.condition) for c in difference.changes]
        == [(abi.AUDIT_ARCH_X86_64, subject.nr, "")]
        and seen_before == "EPERM"
        and seen_after != "EPERM"
        and entry.get("verified") is True
    )
    return Shown(
        [
            f"{runtime}, Docker's default profile:",
            *(f"  {first:24}{second:20}{third}" for first, second, third in rows),
            "Proof, over every call, architecture and argument: the filters differ in"
            if difference.complete
            else f"Proof incomplete ({difference.reason}); found so far:",
            *(proof or ["  nothing"]),
            "Logged:",
            f"  {json.dumps({key: entry[key] for key in _LOGGED if key in entry})}",
        ],
        good,
    )


_LOGGED = ("event", "syscall", "before", "after", "proof", "verified", "stops", "duration_ms")


def docker_default() -> dict[str, Any]:
    """Return Docker's default profile as its daemon flattens it for a container here."""
    document = json.loads((data.directory("profiles") / "docker" / "default.json").read_text())
    major, minor = numbers(os.uname().release)[:2]
    flat = docker.resolve(
        document,
        capabilities=docker.DEFAULT_CAPABILITIES,
        machine="x86_64",
        kernel=(major, minor),
    )
    return flat or {}


def hooks(directory: Path, log: Path, test_syscall: int = 0) -> dict[str, list[dict[str, Any]]]:
    """Return the hooks of a config.json that call ours, with settings of its own."""
    settings = _settings(directory, log)
    hook = str(hookfile.render(directory / "seccomp-shim-hook"))
    args = [hook, "--config", str(settings)]
    if test_syscall:
        args += ["--test-syscall", str(test_syscall)]
    return {"prestart": [{"path": hook, "args": args}]}


def wrapper(directory: Path, log: Path, real: str, test_syscall: int = 0) -> Path:
    """Return a script that calls our wrapper in front of ``real``, with settings of its own.

    It has the name of ``real``, by which podman knows what a runtime can do.
    """
    (directory / "bin").mkdir()
    (directory / "runtime").mkdir()
    words = [str(hookfile.render_all(directory / "bin") / "seccomp-shim-runtime")]
    words += ["--config", str(_settings(directory, log)), "--real-runtime", real]
    if test_syscall:
        words += ["--test-syscall", str(test_syscall)]
    script = directory / "runtime" / os.path.basename(real)
    script.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
    script.chmod(0o755)
    return script


def _settings(directory: Path, log: Path) -> Path:
    secure(str(directory))  # root runs what is beside it, and TMPDIR can be somebody else's
    settings = directory / "config.yaml"
    settings.write_text(f"log: {log}\n")
    settings.chmod(0o644)
    configfile.compile_file(str(settings))
    return settings


def _observe(
    runtime: str,
    directory: Path,
    profile: dict[str, Any],
    subject: DemoCall,
    hooks: dict[str, list[dict[str, Any]]],
) -> tuple[bytes, str]:
    """Run the container; give the filter its process really has and what its call ended with."""
    directory.mkdir()
    oci.bundle(directory, profile, oci.caller([subject.nr]), hooks=hooks)
    with oci.started(runtime, directory, f"seccomp-shim-demo-{uuid.uuid4().hex[:8]}") as process:
        filters = installed_filters(oci.wait_ready(process, directory))
        if len(filters) != 1:
            raise ShimError(f"the container has {counted(len(filters), 'filter')} instead of one")
        code = oci.outcomes(process)[subject.nr]
    if code < 0:
        return filters[0], "SIGILL: the kernel answered"
    return filters[0], errno.errorcode.get(code, str(code))


def _last_line(log: Path) -> dict[str, Any]:
    if not log.exists():
        return {}
    entry: dict[str, Any] = json.loads(log.read_text().splitlines()[-1])
    return entry


def _length(program: bytes) -> str:
    return counted(len(program) // 8, "instruction")


def _verdict(program: bytes, subject: DemoCall) -> str:
    insns = bpf.decode(program)
    return names(outcomes(insns, subject.nr))
