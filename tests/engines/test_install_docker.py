"""Registering with Docker where no dockerd runs: every kind of daemon.json."""

import json
import sys
from typing import Any

import pytest

from engines import user_lands
from engines.verbs import (
    FILE,
    LOG,
    WRAPPER,
    read,
    shim,
    state,
    write,
)
from support import engines
from support.checkout import CHECKOUT
from support.host import Host

LAYOUTS = {
    "absent": None,
    "empty": b"",
    "blank": b" \n",
    "braces": b"{}",
    "open": b"{\n}\n",
    "one-line": b'{"debug":true}',
    "spaced": b'{ "debug": false, "labels": [ "a=b" ] }\n',
    "tabs": b'{\n\t"debug": true,\n\n\t"labels": ["a=b",\n\t\t"c=d"]\n}',
    "crlf": b'{\r\n    "debug": true\r\n}\r\n',
    "runtimes": b'{\n  "runtimes": {\n    "nvidia": {"path": "/usr/bin/true"}\n  }\n}\n',
    "no-runtimes": b'{\n  "runtimes": {},\n  "debug": true\n}\n',
    "default": b'{"default-runtime": "other", "runtimes": {"other": {"path": "/usr/bin/env"}}}\n',
}

REFUSED = {
    "invalid": (b'{"debug": true,}', "daemon.json:1:15: not valid JSON: a comma stands before }"),
    "comments": (b'{\n  // mine\n  "debug": true\n}', "daemon.json:2:3: not valid JSON"),
    "cut": (b'{"debug": tr', "not valid JSON"),
    "duplicate": (b'{"debug": true, "debug": false}', "the key 'debug' appears twice"),
    "array": (b"[]", "is no JSON object"),
    "latin-1": (b'{"labels": ["\xe9"]}', "is not valid UTF-8"),
    "letter-case": (b'{"Runtimes": {}}', "the key 'Runtimes' must be in lower case"),
    "runtimes-array": (b'{"runtimes": []}', "runtimes is not an object"),
    "runtime-string": (b'{"runtimes": {"a": "b"}}', "runtimes: 'a' is not an object"),
    "default-number": (b'{"default-runtime": 1}', "default-runtime is not a string"),
    "foreign": (
        b'{"runtimes": {"seccomp-shim": {"path": "/usr/bin/other"}}}',
        "has a runtime seccomp-shim that is not ours (/usr/bin/other)",
    ),
}


@pytest.mark.parametrize(
    ("layout", "option"),
    [(layout, "--default") for layout in LAYOUTS] + [("absent", ""), ("tabs", ""), ("default", "")],
)
def test_round_trip_leaves_everything_as_it_was(host: Host, layout: str, option: str) -> None:
    """Install adds our entries only, a second one nothing, and uninstall gives all back."""
    write(host, FILE, LAYOUTS[layout])
    before = state(host)
    tree = json.loads(LAYOUTS[layout] or b"{}" if (LAYOUTS[layout] or b"").strip() else b"{}")
    shim(host, "install docker", option)
    installed = read(host, FILE)
    entry = {"path": WRAPPER}
    if tree.get("default-runtime"):
        entry["runtimeArgs"] = ["--real-runtime", "/usr/bin/env"]  # type: ignore[assignment]
    wanted = tree | {"runtimes": {**tree.get("runtimes", {}), "seccomp-shim": entry}}
    if option:
        wanted["default-runtime"] = "seccomp-shim"
    assert json.loads(installed) == wanted
    assert (b"\r\n" in installed) == (layout == "crlf")
    again = shim(host, "install docker", option)
    assert "no file needs to be changed" in again.stderr
    assert read(host, FILE) == installed
    shim(host, "uninstall docker")
    assert state(host) == before


def test_dry_run_shows_the_diff_and_changes_nothing(host: Host) -> None:
    """The diff of a dry run is the one of the real run, which then makes it true."""
    write(host, FILE, LAYOUTS["tabs"])
    before = state(host)
    shown = shim(host, "install docker --dry-run").stdout
    assert state(host) == before
    assert f"+++ {FILE}\n" in shown
    assert [line for line in shown.splitlines() if line.startswith("-")] == [f"--- {FILE}"]
    assert shim(host, "install docker").stdout == shown
    installed = state(host)
    assert shim(host, "uninstall docker --dry-run").stdout
    assert state(host) == installed


def test_json_tells_programs_the_same(host: Host) -> None:
    """With --json there is one document: what would change, what was done, what is left."""
    shown = json.loads(shim(host, "install docker --dry-run --json").stdout)
    assert (shown["changed"], shown["files"], shown["dry_run"]) == (True, [FILE], True)
    assert shown["done"] == []
    told = json.loads(shim(host, "install docker --json").stdout)
    assert (told["diff"], told["done"]) == (shown["diff"], [])
    assert "with --runtime seccomp-shim" in told["covered"]
    assert "a plain docker run" in told["not_covered"]
    assert any("install docker --default" in step for step in told["next_steps"])
    told = json.loads(shim(host, "uninstall docker --json").stdout)
    assert told["changed"]


def test_status_shows_every_engine(host: Host) -> None:
    """Without a name, all engines are asked, and one's trouble does not hide the others."""
    write(host, FILE, b"{")
    done = shim(host, "status --json", code=1)
    engines_told = {each["engine"]: each for each in json.loads(done.stdout)["engines"]}
    assert engines_told.keys() == {"docker", "podman", "containerd", "crio"}
    assert engines_told["docker"]["registered"] is None
    assert "not valid JSON" in engines_told["docker"]["problems"][0]
    assert engines_told["podman"]["registered"] is False


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_daemon_json_is_refused_untouched(host: Host, kind: str) -> None:
    """One clear line, exit status 2, and not a byte or a file changed."""
    data, line = REFUSED[kind]
    write(host, FILE, data)
    before = state(host)
    done = shim(host, "install docker", code=2)
    assert line in done.stderr
    assert FILE in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert state(host) == before


def test_a_byte_order_mark_is_refused_where_dockerd_refuses_it(host: Host) -> None:
    """Docker 20.10 does not start with one: better to say so than to edit it."""
    write(host, FILE, b"\xef\xbb\xbf{}")
    version = host.run("dockerd --version").stdout
    if "version 20." in version:
        assert "byte order mark" in shim(host, "install docker", code=2).stderr
    else:
        shim(host, "install docker")
        assert read(host, FILE).startswith(b"\xef\xbb\xbf{")


def test_a_symbolic_link_is_followed_and_stays(host: Host) -> None:
    """daemon.json as a link: its target is edited, with its mode, and given back."""
    write(host, "/etc/docker/real.json", LAYOUTS["tabs"])
    host.run(f"chmod 640 /etc/docker/real.json; ln -s real.json {FILE}")
    before = state(host)
    shim(host, "install docker")
    assert host.run(f"readlink {FILE}").stdout == "real.json\n"
    assert host.run("stat -c %a /etc/docker/real.json").stdout == "640\n"
    assert "seccomp-shim" in json.loads(read(host, "/etc/docker/real.json"))["runtimes"]
    shim(host, "uninstall docker")
    assert state(host) == before


def test_arguments_that_the_admin_gave_our_entry_stay(host: Host) -> None:
    """Installing again keeps the options that somebody has written into our entry."""
    shim(host, "install docker")
    tree = json.loads(read(host, FILE))
    tree["runtimes"]["seccomp-shim"]["runtimeArgs"] = ["--config", "/etc/mine.yaml"]
    write(host, FILE, json.dumps(tree).encode())
    assert "no file needs to be changed" in shim(host, "install docker").stderr
    shim(host, "install docker --default")
    assert json.loads(read(host, FILE)) == tree | {"default-runtime": "seccomp-shim"}
    shim(host, "uninstall docker")
    host.run(f"test ! -e {FILE}")


def test_edits_made_after_the_install_survive(host: Host) -> None:
    """Uninstall takes exactly our entries out of a file that was edited, and its default back."""
    write(host, FILE, LAYOUTS["default"])
    shim(host, "install docker --default")
    tree = json.loads(read(host, FILE))
    tree["labels"] = ["mine=1"]
    tree["runtimes"]["mine"] = {"path": "/usr/bin/true"}
    write(host, FILE, json.dumps(tree, indent=7).encode())
    shim(host, "uninstall docker")
    del tree["runtimes"]["seccomp-shim"]
    assert json.loads(read(host, FILE)) == tree | {"default-runtime": "other"}
    assert read(host, FILE).startswith(b'{\n       "')


def test_a_read_only_folder_is_one_clear_line(host: Host) -> None:
    """What cannot be written is named, and nothing is left behind."""
    write(host, FILE, b"{}")
    before = state(host)
    script = (
        "mount --bind /etc/docker /etc/docker && mount -o remount,ro,bind /etc/docker && "
        f"cd {CHECKOUT} && exec {sys.executable} -m shim install docker"
    )
    done = host.run(f"unshare --mount sh -c '{script}'", code=2)
    assert "/etc/docker: Read-only file system" in done.stderr
    assert "Traceback" not in done.stderr
    assert state(host) == before


def test_who_is_not_root_is_told(host: Host) -> None:
    """Without root nothing is changed, and the line says how to go on."""
    write(host, FILE, b"{}")
    before = state(host)
    command = f"setpriv --reuid 65534 --clear-groups {sys.executable} -P -m shim install docker"
    line = f"mkdir -p -m 700 /run/home; chown 65534 /run/home; cd / && HOME=/run/home {command}"
    done = host.run(line, code=2, env={"PYTHONPATH": str(CHECKOUT), "PATH": "/usr/sbin:/usr/bin"})
    assert "sudo seccomp-shim install docker" in done.stderr
    assert state(host) == before


def test_the_wrapper_must_be_there(host: Host) -> None:
    """Nothing is registered that does not exist."""
    host.run(f"mv {WRAPPER} {WRAPPER}.away")
    try:
        done = shim(host, "install docker", code=2)
    finally:
        host.run(f"mv {WRAPPER}.away {WRAPPER}")
    assert f"{WRAPPER}: is not there (run install.sh first)" in done.stderr


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (
            "/etc/systemd/system/docker.service",
            "[Service]\nExecStart=/usr/sbin/dockerd -H fd:// \\\n  --default-runtime=crun\n",
        ),
        (
            "/etc/systemd/system/docker.service.d/mine.conf",
            "[Service]\nExecStart=\nExecStart=/usr/sbin/dockerd --default-runtime crun\n",
        ),
        ("/etc/default/docker", 'DOCKER_OPTS="--default-runtime crun"\n'),
    ],
)
def test_a_flag_of_the_service_is_a_conflict(host: Host, path: str, text: str) -> None:
    """With a flag and its key dockerd does not start: refused, naming where the flag is."""
    write(host, path, text.encode())
    done = shim(host, "install docker --default", code=2)
    assert "has the flag --default-runtime crun: dockerd would not start with both" in done.stderr
    assert host.run(f"test -e {FILE}", code=1)


def test_the_services_own_file_is_the_one(host: Host) -> None:
    """Where docker.service names another configuration file, that one is edited."""
    unit = "[Service]\nExecStart=/usr/sbin/dockerd --config-file /etc/docker/mine.json\n"
    write(host, "/etc/systemd/system/docker.service.d/mine.conf", unit.encode())
    shim(host, "install docker")
    assert "seccomp-shim" in json.loads(read(host, "/etc/docker/mine.json"))["runtimes"]


def test_status_says_what_is_wrong(host: Host) -> None:
    """Not registered is fine where the kernel calls for nothing; a dangling entry never is."""
    told = json.loads(shim(host, "status docker --json").stdout)
    assert told["engines"][0]["registered"] is False
    shim(host, "install docker")
    told = shim(host, "status docker").stdout
    assert "registered for some containers only, not running" in told
    assert "not covered: a plain docker run" in told
    host.run(f"mv {WRAPPER} {WRAPPER}.away")
    try:
        done = shim(host, "status docker", code=1)
    finally:
        host.run(f"mv {WRAPPER}.away {WRAPPER}")
    assert f"ATTENTION  docker: {FILE}: seccomp-shim names {WRAPPER}, which is not" in done.stdout


def test_status_is_loud_about_what_was_not_verified(host: Host) -> None:
    """A container without the filter that it should have makes status fail for a day."""
    shim(host, "install docker")
    shim(host, "status docker")
    now = host.run("date -u +%Y-%m-%dT%H:%M:%S.000000Z").stdout.strip()
    old = "2020-01-01T00:00:00.000000Z"
    line = '{"time": "%s", "level": "error", "event": "verified", "container": "%s"}'
    write(host, LOG, f"{line % (old, 'long-ago')}\n".encode())
    shim(host, "status docker")
    write(host, LOG, f"{line % (old, 'long-ago')}\n{line % (now, 'lately')}\nhalf a li".encode())
    done = shim(host, "status docker", code=1)
    assert "lately" in done.stdout
    assert "long-ago" not in done.stdout
    assert "ATTENTION  1 adjustment went wrong in the last 24 hours" in done.stdout


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"runtimeType": "io.containerd.kata.v2"}, "is a containerd shim"),
        ({"path": "/usr/bin/containerd-shim-kata-v2"}, "is a containerd shim"),
        ({"path": "no-such-runtime"}, "names a program that is not there: no-such-runtime"),
        ({"path": "/usr/bin/env", "runtimeArgs": ["runc"]}, "has arguments that are no options"),
    ],
)
def test_a_default_that_cannot_be_wrapped_stays(
    host: Host, entry: dict[str, Any], reason: str
) -> None:
    """--default is refused for it; without, the runtime is added beside it, and that is said."""
    tree = {"default-runtime": "other", "runtimes": {"other": entry}}
    write(host, FILE, json.dumps(tree).encode())
    before = state(host)
    assert reason in shim(host, "install docker --default", code=2).stderr
    assert state(host) == before
    assert reason in shim(host, "install docker").stderr
    assert json.loads(read(host, FILE))["runtimes"]["seccomp-shim"] == {"path": WRAPPER}


@pytest.mark.parametrize("user_land", user_lands.NAMES)
def test_what_dockerd_itself_refuses_is_left_alone(host: Host, user_land: str) -> None:
    """Where dockerd can check its file (23.0), one that it would not start with is not edited."""
    program = user_lands.program(user_land, engines.DOCKERD)
    host.run(f"mount --bind {program} {engines.DOCKERD}")
    try:
        write(host, FILE, b'{"no-such-setting": true}')
        checks = "validate" in host.run("dockerd --help").stdout
        done = shim(host, "install docker", code=2 if checks else 0)
        line = f"{FILE}: dockerd refuses the file as it is: "
        assert done.stderr.startswith(f"seccomp-shim install: {line}") == checks
        assert ("seccomp-shim" in str(read(host, FILE))) != checks
        host.run("rm -rf /etc/docker /var/lib/seccomp-shim")
        done = shim(host, "install docker")
        assert ("dockerd --validate takes the result" in done.stderr) == checks
    finally:
        host.run(f"umount {engines.DOCKERD}")
