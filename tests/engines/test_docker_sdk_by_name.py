"""The Docker SDK's client as we give it, where a newer Debian's runc knows the call's name."""

import time
import uuid
from contextlib import suppress
from pathlib import Path

import docker as sdk
import pytest

from shim import abi
from shim.bpf import emulator
from shim.bpf.program import decode
from shim.catalog import kernel_injected
from shim.engines.docker import shim_client
from support import engines, image
from support.filters import filters_of
from vm import stacks


def _pid_of(word: str) -> int:
    """Wait for the process that has ``word`` as its last argument; give its pid as we see it."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has ended
                if (folder / "cmdline").read_bytes().endswith(f"\0{word}\0".encode()):
                    return int(folder.name)
        time.sleep(0.05)
    raise AssertionError(f"nothing runs with {word}")


@pytest.mark.vm
@pytest.mark.parametrize(("name", "call"), [("trixie", "uretprobe"), ("sid", "uprobe")])
def test_by_name_with_a_runtime_that_knows_it(name: str, call: str) -> None:
    """A newer Debian's own runc loads the name that Docker's profile of that age lacks."""
    [stack] = [each for each in stacks.STACKS if each.name == name]
    with engines.dockerd(tree=stacks.ready(stack).root) as docker:
        plain = sdk.DockerClient(base_url=f"unix://{docker.socket}")
        settings = docker.folder / "config.yaml"
        settings.write_text(f"log: {docker.folder}/audit.jsonl\n")
        client = shim_client(plain, when="always", settings=str(settings))
        word = uuid.uuid4().hex
        container = client.containers.run(image.NAME, [image.CALLER, "stay", word], detach=True)
        [decision] = client.decisions
        assert (decision.choice.action, decision.choice.calls) == ("profile", (call,))
        verdicts = {
            emulator.verdict(decode(program), nr, abi.AUDIT_ARCH_X86_64)
            for program in filters_of(_pid_of(word))
            for nr in (335, kernel_injected()[call].numbers["x86_64"])
        }
        assert verdicts == {abi.SECCOMP_RET_ALLOW}
        container.remove(force=True)
