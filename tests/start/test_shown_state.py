"""What a runtime tells of a container that the wrapper started: hooks and engines read it."""

import json
import os
import subprocess
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest

from shim.engines import oci
from shim.start.spec import RAW_BPF
from support.containers import OTHER_TEST_SYSCALL, TEST_SYSCALL, profile, real
from support.wrapped import WrappedLab, script

STAGES = ("prestart", "createRuntime", "poststart", "poststop")
OWN = ("pid", "created", "id", "bundle", "rootfs")


@pytest.mark.parametrize("runtime", ["runc", "crun"])
def test_the_state_differs_by_the_program_alone(tmp_path: Path, runtime: str) -> None:
    """Of crun ``state`` and hooks' standard input have one annotation more, of runc nothing."""
    lab = WrappedLab(tmp_path, real(runtime))
    bare, ours = (told(lab, each, str(at)) for at, each in enumerate((lab.real, lab.runtime)))
    assert set(bare) == set(ours) == {"state", *STAGES}
    for name, state in ours.items():
        program = (state.get("annotations") or {}).pop(RAW_BPF, "")
        assert bool(program) == (runtime == "crun"), name
        if program:
            assert len(b64decode(program)) == 8 * lab.events("adjusted")[0]["length_after"]
        for key in OWN:
            state.pop(key, None)
            bare[name].pop(key, None)
        assert (state.pop("annotations", None) or {}) == (bare[name].pop("annotations", None) or {})
        assert state == bare[name], name


def told(lab: WrappedLab, runtime: str, name: str) -> dict[str, Any]:
    """Start and end a container; give what ``state`` says, and what the hooks were given."""
    folder = lab.folder / f"bundle-{name}"
    folder.mkdir()
    hooks = {}
    for stage in STAGES:
        hook = script(folder / f"hook-{stage}", f"cat >{folder}/{stage}")
        hooks[stage] = [{"path": hook, "args": [hook]}]
    oci.bundle(folder, profile(), oci.caller((TEST_SYSCALL, OTHER_TEST_SYSCALL)), hooks=hooks)
    ident = f"shim-told-{os.getpid()}-{name}"
    with oci.started(runtime, folder, ident) as process:
        oci.wait_ready(process, folder)
        state = subprocess.run(
            oci.command(lab.real, "state", ident), capture_output=True, text=True, check=True
        ).stdout
        process.communicate("\n")
    found = {stage: json.loads((folder / stage).read_text()) for stage in STAGES}
    return {"state": json.loads(state), **found}
