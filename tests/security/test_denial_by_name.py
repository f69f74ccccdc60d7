"""A denial by name stands on every way in: tables of what profiles say, and real containers.

The test number stands for a call that the kernel injects; no libseccomp resolves its name, so the
compiled program shows the default denial: only the profile tells that it was meant.
"""

import json
import subprocess
import uuid
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from shim import abi
from shim.bpf.program import LD_ABS, RET_K, Insns, encode
from shim.catalog import kernel_injected
from shim.engines import oci
from shim.engines.docker.choose import RUNTIME, Daemon, Request, choose
from shim.errors import ShimError
from shim.host.runtimes import Runtime
from shim.profile.document import read
from shim.profile.edit import plan
from shim.start.spec import parse
from shim.start.wrapper.exec import Exec
from shim.start.wrapper.mechanism import change
from support import filters
from support.containers import ENOSYS, EPERM, OTHER_TEST_SYSCALL, TEST_SYSCALL, profile, real
from support.filters import JEQ, JGE, filters_of
from support.joined import outcomes as printed
from support.wrapped import WrappedLab

ALLOW, ERRNO, KILL = "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL_PROCESS"
FIRST = [{"index": 0, "value": 7, "op": "SCMP_CMP_EQ"}]
URETPROBE = kernel_injected()["uretprobe"]
CALLS = {"uretprobe": 335}

# One rule each, of which NAME stands for the call. All mean it; most are dropped by a libseccomp
# that does not know the name, and the rest by every one.
ACTIONS = [
    {"action": f"SCMP_ACT_{action}"}
    for action in ("ERRNO", "KILL", "KILL_THREAD", "KILL_PROCESS", "TRAP", "TRACE", "NOTIFY")
]
RULES: list[dict[str, Any]] = [
    *({"names": ["NAME"], **rule} for rule in ACTIONS),
    *({"names": ["read", "NAME"], **rule, "args": FIRST} for rule in ACTIONS),
    {"names": ["NAME"], "action": ERRNO, "errnoRet": 38},
    {"names": ["NAME"], "action": ALLOW, "args": FIRST},
    {"names": [" NAME"], "action": KILL},
    {"names": ["335"], "action": KILL},
    {"names": ["0x14F"], "action": KILL},
    {"names": ["x32_NAME"], "action": KILL},
    {"names": [str(335 | abi.X32_SYSCALL_BIT)], "action": KILL},
    {"names": ["__NR_NAME"], "action": KILL},
    {"names": ["SYS_NAME"], "action": KILL},
]
CONDITIONS: list[dict[str, Any]] = [
    {"includes": {"caps": ["CAP_SYS_ADMIN"]}},
    {"excludes": {"caps": ["CAP_SYS_ADMIN"]}},
    {"includes": {"minKernel": "6.11"}},
    {"excludes": {"minKernel": "6.11"}},
    {"includes": {"arches": ["amd64"]}},
    {"excludes": {"arches": ["arm64"]}},
]
PROFILES: list[dict[str, Any]] = [
    {},
    {"defaultAction": "SCMP_ACT_TRAP"},
    {"architectures": ["SCMP_ARCH_X86"]},
    {"architectures": ["SCMP_ARCH_AARCH64"]},
    {"architectures": None},
]
RUNTIMES = [
    Runtime("/usr/sbin/runc", [], "runc 1.1.5", "2.5.4"),
    Runtime("/usr/sbin/runc", [], "runc 1.1.15", "2.6.1"),
    Runtime("/usr/bin/crun", [], "crun 1.8.1", "2.5.4"),
    Runtime("/usr/bin/crun", [], "crun 1.21", "2.6.1"),
    Runtime("/usr/bin/youki", [], "", None),
]
RAW_BPF = "run.oci.seccomp_bpf_data"


def named(value: Any, name: str = "uretprobe") -> Any:
    """Put the call's name into a rule."""
    return json.loads(json.dumps(value).replace("NAME", name))


def denying(rule: dict[str, Any], base: dict[str, Any]) -> dict[str, Any]:
    """Return a profile with the one rule and everything else behind it."""
    document = profile(**base)
    return document | {"syscalls": [named(rule), *document["syscalls"]]}


@pytest.mark.parametrize("base", PROFILES, ids=str)
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_no_config_is_changed_for_it(rule: dict[str, Any], base: dict[str, Any]) -> None:
    """By name, by raw program, by injection, wrapper and precreate alike: nothing is called for."""
    config: dict[str, Any] = {"ociVersion": "1.0.2", "linux": {"seccomp": denying(rule, base)}}
    for annotations in ({}, {RAW_BPF: "BgAAAAEABQA="}):
        text = json.dumps(config | {"annotations": annotations})
        for runtime in RUNTIMES:
            made = change(parse(text), CALLS, runtime)
            assert (made.mechanism, made.spec.proved()) == ("", text)
            assert "uretprobe" in str(made.facts["reason"])


def documents(rule: dict[str, Any], base: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the profile in every format, in Docker's under each condition that can hold."""
    flat = denying(rule, base)
    yield flat
    yield {"ociVersion": "1.0.2", "linux": {"seccomp": flat}}
    yield {
        "apiVersion": "security-profiles-operator.x-k8s.io/v1beta1",
        "kind": "SeccompProfile",
        "spec": flat,
    }
    first, *rest = flat["syscalls"]
    if first["action"] == ALLOW:
        return  # to some containers only, that is no denial: others have none of it
    for condition in CONDITIONS:
        yield flat | {"syscalls": [{**first, **condition}, *rest]}
    single = {key: value for key, value in first.items() if key != "names"}
    yield flat | {"syscalls": [{**single, "name": first["names"][-1]}, *rest]}


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_no_profile_is_patched_for_it(rule: dict[str, Any]) -> None:
    """Patch, patch --all, fleets, ``exec``, ``docker``: no edit, but for --override-deny."""
    for base in PROFILES:
        for tree in documents(rule, base):
            document = read(json.dumps(tree).encode(), "p.json")
            edits, [finding] = plan(document, [URETPROBE], {}, "always")
            assert (edits, finding.changed) == ([], False), finding


@pytest.mark.parametrize("runtimes", [frozenset({"runc"}), frozenset({"runc", RUNTIME})])
@pytest.mark.parametrize("release", ["2.5.4", "2.6.1", None])
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_no_docker_container_is_given_anything_for_it(
    rule: dict[str, Any], release: "str | None", runtimes: "frozenset[str]"
) -> None:
    """The command line and the SDK choose neither a profile nor our runtime."""
    states = {"uretprobe": "filtered", "uprobe": "absent"}
    daemon = Daemon("26.1.5", states, libseccomp=release, runtimes=runtimes)
    asked = Request([f"seccomp={json.dumps(denying(rule, {}))}"])
    assert choose(daemon, asked).action == "nothing"


# --- Real containers ---------------------------------------------------------------------------

NUMBER = str(TEST_SYSCALL)
REAL: list[dict[str, Any]] = [
    {"names": ["NAME"], "action": KILL},
    {"names": ["NAME"], "action": ERRNO},
    {"names": ["NAME"], "action": ERRNO, "errnoRet": 5, "args": FIRST},
    {"names": ["NAME"], "action": ALLOW, "args": FIRST},
    {"names": ["NAME"], "action": "SCMP_ACT_TRACE"},
    {"names": [NUMBER], "action": KILL},
]
STAGES = ("prestart", "createRuntime")


class Ways(WrappedLab):
    """The wrapper's directory, from which a container is started in each of the ways."""

    @contextmanager
    def starting(
        self,
        way: str,
        seccomp: "dict[str, Any] | None",
        annotations: "dict[str, str] | None" = None,
    ) -> Iterator["Way"]:
        """Start a container in one of the ways."""
        hooks = self.hooks(stage=way) if way in STAGES else {}
        name = f"shim-denial-{uuid.uuid4().hex[:8]}"
        folder = self.folder / name
        folder.mkdir()
        oci.bundle(folder, seccomp, oci.caller((TEST_SYSCALL, OTHER_TEST_SYSCALL)), hooks=hooks)
        config = folder / "config.json"
        if annotations:
            tree = json.loads(config.read_text()) | {"annotations": annotations}
            config.write_text(json.dumps(tree))
        if way == "precreate":
            command = [f"{self.bin}/seccomp-shim-precreate", "--config"]
            command += [
                f"{self.folder}/config.yaml",
                "--test-syscall",
                NUMBER,
                "--runtime",
                self.real,
            ]
            done = subprocess.run(
                command, input=config.read_bytes(), capture_output=True, check=True
            )
            config.write_bytes(done.stdout)
        runtime = self.runtime if way == "wrapper" else self.real
        with oci.started(runtime, folder, name) as process:
            oci.wait_ready(process, folder)
            yield Way(self, name, config, process)


class Way:
    """A container that was started in one of the ways, from ``config``."""

    def __init__(
        self, lab: Ways, name: str, config: Path, process: "subprocess.Popen[str]"
    ) -> None:
        self.lab, self.name, self.config, self.process = lab, name, config, process

    def joined(self) -> dict[int, int]:
        """Return what the calls of a process end with that ``exec`` through the wrapper starts."""
        words = ["exec", self.name, *oci.caller((TEST_SYSCALL, OTHER_TEST_SYSCALL))]
        command = oci.command(self.lab.runtime, *words)
        done = subprocess.run(command, input="\n", capture_output=True, text=True, check=True)
        return printed(done.stdout)


@pytest.fixture(params=["runc", "crun"])
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Ways:
    """Return the executables for each runtime."""
    return Ways(tmp_path, real(request.param))


CASES = [("wrapper", rule) for rule in REAL] + [
    (way, rule) for way in ("plain", "precreate", *STAGES) for rule in (REAL[0], REAL[3])
]


@pytest.mark.parametrize(("way", "rule"), CASES, ids=str)
def test_it_stands_in_the_container_and_in_what_joins_it(
    lab: Ways, way: str, rule: dict[str, Any]
) -> None:
    """Whoever started it and whatever joins it: the call is denied, and nothing was adjusted."""
    body = profile()
    body["syscalls"] = [named(rule, f"test-syscall-{TEST_SYSCALL}"), *body["syscalls"]]
    with lab.starting(way, body) as container:
        assert container.joined() == {TEST_SYSCALL: EPERM, OTHER_TEST_SYSCALL: EPERM}
        assert container.joined() == {TEST_SYSCALL: EPERM, OTHER_TEST_SYSCALL: EPERM}
        assert oci.outcomes(container.process) == {TEST_SYSCALL: EPERM, OTHER_TEST_SYSCALL: EPERM}
    assert not [line for line in lab.log() if line["event"] in {"adjusting", "adjusted", "failed"}]


@pytest.mark.parametrize("way", ["wrapper", "plain", "createRuntime"])
def test_without_it_each_way_lets_the_call_through(lab: Ways, way: str) -> None:
    """What the test before would see if it had no denial to respect."""
    with lab.starting(way, profile()) as container:
        assert container.joined() == {TEST_SYSCALL: ENOSYS, OTHER_TEST_SYSCALL: EPERM}
        expected = EPERM if way == "plain" else ENOSYS
        assert oci.outcomes(container.process) == {
            TEST_SYSCALL: expected,
            OTHER_TEST_SYSCALL: EPERM,
        }


def test_what_becomes_of_the_bundle_is_of_no_account(lab: Ways) -> None:
    """A denial taken out of config.json after the start still stands for what joins."""
    body = profile()
    body["syscalls"] = [named(REAL[0], f"test-syscall-{TEST_SYSCALL}"), *body["syscalls"]]
    with lab.starting("plain", body) as container:
        config = json.loads(container.config.read_text())
        config["linux"]["seccomp"] = profile()
        container.config.write_text(json.dumps(config))
        assert container.joined() == {TEST_SYSCALL: EPERM, OTHER_TEST_SYSCALL: EPERM}


@pytest.mark.parametrize("body", [profile(), None], ids=["profile", "none"])
def test_a_raw_program_that_denies_by_an_argument(
    tmp_path: Path, body: "dict[str, Any] | None"
) -> None:
    """A tenant's program that kills the call with one argument is loaded as it is, for exec too."""
    crun = Ways(tmp_path, real("crun"))
    insns: Insns = [
        (LD_ABS, 0, 0, 0),
        (JEQ, 0, 4, TEST_SYSCALL),
        (LD_ABS, 0, 0, 16),
        (JEQ, 0, 1, 7),
        (RET_K, 0, 0, abi.SECCOMP_RET_KILL_PROCESS),
        (RET_K, 0, 0, abi.SECCOMP_RET_ERRNO | EPERM),
        (JGE, 0, 2, abi.TEST_SYSCALLS.start),
        (JGE, 1, 0, abi.TEST_SYSCALLS.stop),
        (RET_K, 0, 0, abi.SECCOMP_RET_ERRNO | EPERM),
        filters.ALLOW,
    ]
    program = encode(insns)
    annotations = {RAW_BPF: b64encode(program).decode()}
    with crun.starting("wrapper", body, annotations=annotations) as container:
        assert filters_of(oci.read_pid(container.config.parent)) == [program]
        assert container.joined() == {TEST_SYSCALL: EPERM, OTHER_TEST_SYSCALL: EPERM}
        assert oci.outcomes(container.process) == {TEST_SYSCALL: EPERM, OTHER_TEST_SYSCALL: EPERM}
    (line, *_) = [line for line in crun.log() if line["event"] == "left-alone"]
    assert "decides on it by its arguments" in line["reason"]


@pytest.mark.parametrize("copy", [None, "{", "[]", '{"linux": {"seccomp": {"Syscalls": []}}}'])
def test_without_a_profile_to_be_believed_nothing_is_made_longer(
    tmp_path: Path, copy: "str | None"
) -> None:
    """What crun keeps of a container is left as it is where its profile is gone or no profile."""
    state = tmp_path / "c1"
    state.mkdir()
    (state / "status").write_text("{}")
    (state / "seccomp.bpf").write_bytes(filters.denying())
    if copy is not None:
        (state / "config.json").write_text(copy)
    start = Exec({"on_error": "allow", "log": str(tmp_path / "log")})
    start.facts["runtime"] = "/usr/bin/crun"
    with pytest.raises(ShimError, match=r"config.json|Syscalls"):
        start.prepare(
            str(tmp_path), "c1", {f"test-syscall-{TEST_SYSCALL}": TEST_SYSCALL}, sure=True
        )
    assert (state / "seccomp.bpf").read_bytes() == filters.denying()
