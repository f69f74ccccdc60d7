"""What Docker shows when the wrapper refuses a start, or does without."""

from pathlib import Path
from typing import Any

import pytest

from support import engines, image, need
from support.containers import EPERM, TEST_SYSCALL
from support.wrapped import WrappedLab


@pytest.mark.parametrize("on_error", ["allow", "deny"])
def test_docker_shows_why_a_start_was_refused(tmp_path: Path, on_error: str) -> None:
    """With a log that cannot be written: one line of ours in docker's message, or none at all."""
    lab = WrappedLab(tmp_path, need.program("runc"))
    lab.configure(on_error, log=tmp_path / "missing" / "audit.jsonl")
    options = ["--config", f"{tmp_path}/config.yaml", "--test-syscall", str(TEST_SYSCALL)]
    # Everything that reads the bundle fails: it is taken for a profile that nobody understands.
    template = lab.wrapper.read_text()
    line = "    from shim.start.wrapper.main import main\n"
    assert line in template
    fault = "    import shim.start.wrapper.mechanism\n    del shim.start.wrapper.mechanism.change\n"
    lab.wrapper.write_text(template.replace(line, fault + line))
    settings: dict[str, Any] = {
        "runtimes": {"shim": {"path": str(lab.wrapper), "runtimeArgs": options}}
    }
    with engines.dockerd(settings) as docker:
        words = ["--rm", "--network", "none", "--runtime", "shim", image.NAME, image.CALLER]
        done = docker("run", *words, str(TEST_SYSCALL), code=None)
    if on_error == "allow":
        assert (done.returncode, done.stderr) == (0, "")
        assert f"{TEST_SYSCALL} {EPERM}" in done.stdout
    else:
        assert done.returncode != 0
        assert done.stdout == ""
        assert "seccomp-shim: start refused (on_error: deny): " in done.stderr
