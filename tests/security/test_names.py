"""Names, labels and texts that others choose: no line of a log and no screen is theirs."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shim.engines import oci
from support.containers import TEST_SYSCALL, profile, real
from support.host import Host, throwaway
from support.image import at_terminal
from support.installed import LOG, command, install
from support.wrapped import WrappedLab

# Colours, a title, a line that looks like one of ours, cursor movements in C1, a reversed text.
EVIL = '\x1b[2J\x1b]0;owned\x07\n{"level":"error","event":"refused"}\r\x9b31m\u202etxt.\x85"\\'
NAME = EVIL.replace("/", "")


def seen(text: str) -> set[str]:
    """Return the characters of a screen's text that are neither printable nor an end of line."""
    return {letter for letter in text if not letter.isprintable() and letter != "\n"}


@pytest.fixture(params=["runc", "crun"])
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> WrappedLab:
    """Return the wrapper before each runtime."""
    return WrappedLab(tmp_path, real(request.param))


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("on_error", ["allow", "deny"])
def test_a_bundle_s_name_forges_nothing(lab: WrappedLab, form: str, on_error: str) -> None:
    """A failure that names it is one line of each log, and one of standard error.

    The annotations, the container's id and its labels come in no line at all, or escaped.
    """
    lab.configure(on_error)
    folder = lab.folder / NAME
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"annotations": {EVIL: EVIL}, "linux": EVIL}))
    log = lab.folder / "engine.log"
    words = ["--log", str(log), "--log-format", form, "create", "--bundle", str(folder), EVIL]
    done = subprocess.run([lab.runtime, *words], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    (line,) = lab.log_path.read_bytes().splitlines()
    told = json.loads(line)
    assert (told["bundle"], told["container"]) == (str(folder), EVIL)
    assert told["event"] == ("failed" if on_error == "allow" else "refused")
    if on_error == "deny":
        (ours,) = log.read_text().split("\n")[:-1]
        assert "seccomp-shim" in ours
        assert not seen(ours)
        assert done.stderr.count("\n") == 1
        assert not seen(done.stderr)


def test_an_adjusted_container_s_name_forges_nothing(lab: WrappedLab) -> None:
    """Each line of the audit log is one document, whatever the bundle is called."""
    folder = lab.folder / NAME
    folder.mkdir()
    oci.bundle(folder, profile(), oci.caller((TEST_SYSCALL,)))
    config = json.loads((folder / "config.json").read_text())
    config["annotations"] = {EVIL: EVIL}
    (folder / "config.json").write_text(json.dumps(config))
    with oci.started(lab.runtime, folder, f"shim-names-{os.getpid()}") as process:
        process.communicate("\n", timeout=60)
    lines = [json.loads(line) for line in lab.log_path.read_bytes().splitlines()]
    assert {line["bundle"] for line in lines} == {str(folder)}
    assert "adjusted" in {line["event"] for line in lines}
    assert {line["event"] for line in lines} <= {"adjusting", "adjusted", "verified"}


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """Yield a view of the host in which things may be planted."""
    with throwaway(tmp_path) as view:
        install(view)
        yield view


def planted(host: Host, path: str, text: str) -> None:
    """Write a file of a user's."""
    code = (
        "import pathlib, sys; path = pathlib.Path(sys.argv[1]);"
        "path.parent.mkdir(parents=True, exist_ok=True); path.write_text(sys.argv[2])"
    )
    subprocess.run([*host.enter, sys.executable, "-c", code, path, text], check=True)


def shown(host: Host, *words: str) -> str:
    """Run a verb and return all that it puts on the screen."""
    done = subprocess.run(
        command(host, *words), capture_output=True, text=True, check=False, timeout=120
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout + done.stderr


def test_status_shows_no_escape_of_a_container(host: Host) -> None:
    """What went wrong is told with the names escaped."""
    hostile = dict.fromkeys(("container", "bundle", "runtime", "reason", "engine"), EVIL)
    line = {"time": "2999-01-01T00:00:00.000000Z", "level": "error", "event": "failed"} | hostile
    planted(host, LOG, json.dumps(line) + "\n")
    text = shown(host, "status")
    assert "owned" in text
    assert not seen(text)


@pytest.mark.parametrize(
    "words",
    [
        ("find",),
        ("patch", "--all", "--diff", "--when", "always"),
        ("patch", "--all", "--check", "--when", "always"),
    ],
    ids=" ".join,
)
def test_what_lies_about_shows_no_escape(host: Host, words: tuple[str, ...]) -> None:
    """Names of files and directories, and what stands in them, reach the screen escaped."""
    denying = json.dumps({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": []})
    text = denying[:-1] + ', "comment": "\x9b31m\u202eevil\x85"}'
    planted(host, f"/srv/{NAME}/p.json", text)
    planted(host, f"/srv/{NAME}/q.json", '{"defaultAction": ["\\u001b[31m"], "syscalls": 1}')
    services = {
        f"{EVIL}{number}": {
            "image": EVIL,
            "labels": {EVIL: EVIL},
            "security_opt": [f"seccomp:{name}"],
        }
        for number, name in enumerate(("p.json", "q.json", NAME))
    }
    planted(host, f"/srv/{NAME}/compose.yaml", json.dumps({"services": services}))
    words = (*words, "/srv") if words[0] == "find" else words
    _, told = at_terminal(command(host, *words))
    assert "owned" in told
    assert not seen(told.replace("\r\n", "\n").replace("\t", ""))
