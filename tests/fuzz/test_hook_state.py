"""Whatever a hook gets on standard input, it ends as the admin chose, with one line."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fuzz.conftest import Inputs
from fuzz.mutate import damaged, laid_out, scarred
from support import need
from support.containers import Lab

STATE: dict[str, Any] = {
    "ociVersion": "1.0.2",
    "id": "c1",
    "status": "creating",
    "pid": 4_000_000,  # above what any process here has (proc(5), pid_max)
    "root": "/nowhere/rootfs",
    "bundle": "/nowhere/\n\x1b[31m{}",
    "annotations": {"a": "b"},
}
WORDS = ["\x00", "\xff", '"', "{", "[" * 3000, '"pid":1,', '"pid":-1,', '"bundle":"/",', "1e999"]


@pytest.mark.parametrize("on_error", ["allow", "deny"])
def test_a_state_is_read_or_refused_with_a_line(
    tmp_path: Path, inputs: Callable[..., Inputs], on_error: str
) -> None:
    """Exit status 0 or 1 as on_error says, one line on standard error and one in the log."""
    need.root()
    lab = Lab(tmp_path, "runc")
    lab.configure(on_error)
    (entry,) = lab.hooks()["prestart"]
    tries = inputs(f"hook states ({on_error})", few=25, many=1500)
    for draw in tries:
        text = scarred(draw, laid_out(draw, damaged(draw, STATE)), WORDS)
        lab.log_path.unlink(missing_ok=True)
        done = subprocess.run(
            entry["args"],
            input=text.encode("utf-8", "surrogatepass"),
            capture_output=True,
            env={},
            timeout=60,
            check=False,
        )
        assert done.returncode == (0 if on_error == "allow" else 1), text
        assert done.stderr.startswith(b"seccomp-shim"), text
        assert done.stderr.count(b"\n") == 1, text
        assert done.stderr.decode().rstrip("\n").isprintable(), text
        (line,) = lab.log_path.read_bytes().splitlines()
        event = json.loads(line)["event"]
        assert event == ("failed" if on_error == "allow" else "refused")
        tries.count(event)
