"""Registering with Docker: every kind of daemon.json, and a real dockerd."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support import engines, image
from support.checkout import CHECKOUT
from support.host import Host, throwaway
from support.verbs import (
    BIN,
    CANARY,
    DAEMONS,
    ENOSYS,
    EPERM,
    FILE,
    LOG,
    WRAPPER,
    info,
    outcome,
    prepare,
    read,
    replace_daemon,
    shim,
    state,
    write,
)

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


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """Give a view of this host with us installed and no dockerd running in it."""
    scratch = tmp_path_factory.mktemp("view")
    with throwaway(scratch) as host:
        prepare(host)
        yield host


@pytest.fixture
def host(view: Host) -> Host:
    """Give that view as before any other test: no configuration of Docker, no record, no log."""
    view.run(f"chattr -i /etc/docker 2>/dev/null; rm -rf /etc/docker /var/lib/seccomp-shim {LOG}")
    view.run("rm -rf /etc/systemd/system/docker.service* /etc/default/docker")
    return view


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
    """One clear line, exit code 2, and not a byte or a file changed."""
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
    assert "ATTENTION  1 adjustments went wrong in the last 24 hours" in done.stdout


def removed(host: Host) -> "subprocess.CompletedProcess[str]":
    """Have install.sh remove us, as if it had put us there."""
    program = f'exec env PYTHONPATH={CHECKOUT} {sys.executable} -P -m shim "$@"'
    return host.run(
        f"touch /opt/seccomp-shim/manifest; echo '#!/bin/sh\n{program}' >{BIN}/seccomp-shim\n"
        f"chmod +x {BIN}/seccomp-shim; {CHECKOUT}/install.sh --uninstall",
        code=2,
    )


@pytest.fixture
def docker() -> Iterator[engines.Docker]:
    """Give a running dockerd without daemon.json, and us installed beside it with a canary."""
    with engines.dockerd() as daemon:
        prepare(daemon.host, f"canary: {CANARY}")
        yield daemon


@pytest.mark.parametrize("program", DAEMONS.values(), ids=DAEMONS.keys())
def test_containers_run_through_it_after_a_reload(docker: engines.Docker, program: str) -> None:
    """Install reloads the running dockerd; its containers are adjusted from then on."""
    replace_daemon(docker, program)
    assert outcome(docker) == EPERM
    done = shim(docker.host, "install docker")
    assert f"has read {FILE} again" in done.stderr
    assert outcome(docker, "--runtime", "seccomp-shim") == ENOSYS
    assert outcome(docker) == EPERM
    status = shim(docker.host, "status docker").stdout
    assert "registered for some containers only, the running one knows it" in status
    shim(docker.host, "install docker --default")
    assert outcome(docker) == ENOSYS
    assert info(docker)["DefaultRuntime"] == "seccomp-shim"
    done = shim(docker.host, "uninstall docker")
    assert "before seccomp-shim is removed" in done.stderr
    docker.host.run(f"test ! -e {FILE}")
    assert "until then it starts" in shim(docker.host, "status docker", code=1).stdout
    assert "restart dockerd first" in removed(docker.host).stderr
    docker.stop()
    docker.start()
    assert "seccomp-shim" not in info(docker)["Runtimes"]
    assert outcome(docker) == EPERM
    shim(docker.host, "status docker")


def test_uninstall_strands_no_container(docker: engines.Docker) -> None:
    """Containers that were created with the runtime keep it from being taken away, but by force."""
    shim(docker.host, "install docker")
    docker("create", "--name", "mine", "--runtime", "seccomp-shim", image.NAME, "/bin/true")
    before = state(docker.host)
    done = shim(docker.host, "uninstall docker", code=2)
    assert "1 containers were created with the runtime" in done.stderr
    assert "mine" in done.stderr
    assert state(docker.host) == before
    shim(docker.host, "uninstall docker --force")
    docker.host.run(f"test ! -e {FILE}")


@pytest.mark.parametrize("program", DAEMONS.values(), ids=DAEMONS.keys())
def test_the_former_default_is_what_the_wrapper_calls(docker: engines.Docker, program: str) -> None:
    """A default runtime of the admin's keeps being called, with its arguments."""
    replace_daemon(docker, program)
    other = docker.folder / "other"
    other.write_text(f'#!/bin/sh\necho "$@" >>{other}.log\nexec runc "$@"\n')
    other.chmod(0o755)
    runtimes = {"other": {"path": str(other), "runtimeArgs": ["--debug"]}}
    docker.configure({"default-runtime": "other", "runtimes": runtimes})
    docker.reload()
    before = state(docker.host)
    shim(docker.host, "install docker --default")
    assert outcome(docker) == ENOSYS
    calls = Path(f"{other}.log").read_text().splitlines()
    assert len([call for call in calls if call.startswith("--debug ") and " create " in call]) == 1
    shim(docker.host, "uninstall docker")
    assert state(docker.host) == before
    assert info(docker)["DefaultRuntime"] == "other"


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


def test_no_reload_leaves_the_daemon_alone_and_status_says_so(docker: engines.Docker) -> None:
    """With --no-reload the daemon is not told, and both verbs say that this is left to do."""
    done = shim(docker.host, "install docker --no-reload")
    assert "has not been told: kill -HUP" in done.stderr
    assert "seccomp-shim" not in info(docker)["Runtimes"]
    assert "reload or restart it" in shim(docker.host, "status docker", code=1).stdout
    shim(docker.host, "install docker")
    assert "seccomp-shim" in info(docker)["Runtimes"]


@pytest.mark.parametrize("program", DAEMONS.values(), ids=DAEMONS.keys())
def test_flags_of_the_running_daemon_count(program: str) -> None:
    """A default as a flag is a conflict; runtimes as flags, which a reload drops, prevent one."""
    flags = ("--default-runtime", "other", "--add-runtime", "other=/usr/sbin/runc")
    with engines.dockerd(None, *flags) as docker:
        prepare(docker.host)
        replace_daemon(docker, program)
        done = shim(docker.host, "install docker --default", code=2)
        assert "the running dockerd" in done.stderr
        assert "has the flag --default-runtime other" in done.stderr
        done = shim(docker.host, "install docker")
        assert "would forget the runtimes of its flag --add-runtime" in done.stderr
        assert "other" in info(docker)["Runtimes"]
        entry = json.loads(read(docker.host, FILE))["runtimes"]["seccomp-shim"]
        assert entry["runtimeArgs"] == ["--real-runtime", "/usr/sbin/runc"]
        docker.stop()
        docker.start()
        assert {"other", "seccomp-shim"} <= info(docker)["Runtimes"].keys()


def test_a_profile_is_refused_where_the_runtime_drops_its_names(docker: engines.Docker) -> None:
    """With an old libseccomp --profile would change nothing: refused, and why."""
    runtime = docker.folder / "knowing"
    version = '{"annotations": {"io.github.seccomp.libseccomp.version": "2.5.4"}}'
    claim(runtime, version)
    docker.configure({"default-runtime": "k", "runtimes": {"k": {"path": str(runtime)}}})
    before = state(docker.host)
    done = shim(docker.host, "install docker --profile", code=2)
    assert "libseccomp 2.5.4, which drops the name uretprobe" in done.stderr
    assert state(docker.host) == before


def claim(runtime: Path, features: str) -> None:
    """Make a runc that answers ``features`` so; what is read there decides, not what is linked."""
    runtime.write_text(
        f'#!/bin/sh\n[ "$1" = features ] && echo \'{features}\' && exit\nexec runc "$@"\n'
    )
    runtime.chmod(0o755)


def test_a_profile_is_written_set_and_taken_back(docker: engines.Docker) -> None:
    """Where the runtime knows the name, dockerd takes our profile at its next start."""
    runtime = docker.folder / "knowing"
    claim(runtime, '{"annotations": {"io.github.seccomp.libseccomp.version": "2.6.0"}}')
    docker.configure({"default-runtime": "k", "runtimes": {"k": {"path": str(runtime)}}})
    docker.reload()
    before = state(docker.host)
    done = shim(docker.host, "install docker --profile")
    assert "restart dockerd: it reads seccomp-profile at start only" in done.stderr
    profile = json.loads(read(docker.host, FILE))["seccomp-profile"]
    names = json.loads(read(docker.host, profile))["syscalls"][0]["names"]
    assert names == ["uretprobe"]  # uprobe came with libseccomp 2.6.1
    assert f"does not use {profile} yet" in shim(docker.host, "status docker", code=1).stdout
    docker.stop()
    docker.start()
    assert f"name=seccomp,profile={profile}" in info(docker)["SecurityOptions"]
    shim(docker.host, "status docker")
    assert outcome(docker) == EPERM
    shim(docker.host, "uninstall docker")
    assert state(docker.host) == before


@pytest.mark.parametrize("program", DAEMONS.values(), ids=DAEMONS.keys())
def test_what_dockerd_itself_refuses_is_left_alone(host: Host, program: str) -> None:
    """Where dockerd can check its file (23.0), one that it would not start with is not edited."""
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


def test_a_profile_of_the_admins_own_stays(docker: engines.Docker) -> None:
    """An own seccomp-profile is never replaced: the line says how to add the calls to it."""
    docker.configure({"seccomp-profile": "/etc/docker/mine.json"})
    before = state(docker.host)
    done = shim(docker.host, "install docker --profile", code=2)
    assert "seccomp-shim patch --in-place /etc/docker/mine.json" in done.stderr
    assert state(docker.host) == before
