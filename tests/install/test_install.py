"""install.sh, run for real on a throwaway view of this host."""

import os
import re
from pathlib import Path

import pytest

from support import need
from support.checkout import CHECKOUT
from support.host import Host, listing, throwaway

INSTALL = f"{CHECKOUT}/install.sh"
PREFIX = "/opt/seccomp-shim"
SOURCES = "pyproject.toml README.md LICENSE install.sh shim hooks profiles deploy"
HOOK = f"{PREFIX}/bin/seccomp-shim-hook"


def test_installs_and_changes_nothing_when_run_again(
    installed: Host, base: tuple[Host, list[str], str]
) -> None:
    """One run puts command, hook, settings and log directory in place; a second one is a no-op."""
    _, _, said = base
    assert "Installing seccomp-shim" in said
    assert installed.run("/usr/local/bin/seccomp-shim --version").stdout.startswith("seccomp-shim ")
    places = f"{PREFIX} {HOOK} /etc/seccomp-shim/config.yaml /var/log/seccomp-shim"
    modes = installed.run(f"stat -c %a {places}").stdout
    assert modes.split() == ["755", "755", "644", "2750"]
    assert installed.run(f"find {PREFIX} ! -user root -o -perm /022 ! -type l").stdout == ""
    before = listing(installed)
    second = installed.run(f"cd / && {INSTALL} --no-demo")
    assert "up to date" in second.stdout
    assert listing(installed) == before


def test_profiles_of_this_host_are_out_of_reach(host: Host) -> None:
    """What `patch --all` changes in the view, whatever it is called for, vanishes with it."""
    for folder in ("/etc", "/opt", "/srv", "/usr/share/containers"):
        if os.path.isdir(folder):
            inside = host.run(f"stat -c %d {folder}").stdout
            assert int(inside) != os.stat(folder).st_dev, folder


def test_imports_are_compiled(installed: Host) -> None:
    """No hook has to compile a module: each has its valid bytecode beside it."""
    script = f"cd {PREFIX}/current/lib/python3*/site-packages/shim && find . -name '*.py'"
    sources = installed.run(script).stdout.split()
    python = f"{PREFIX}/current/bin/python"
    check = (
        "import importlib.util as u, os, sys\n"
        "for s in sys.argv[1:]:\n"
        "    head = open(u.cache_from_source(s), 'rb').read(12)\n"
        "    assert head[:4] == u.MAGIC_NUMBER and head[4:8] == bytes(4), s\n"
        "    assert int.from_bytes(head[8:], 'little') == int(os.stat(s).st_mtime), s\n"
    )
    assert len(sources) > 20
    folder = f"$(echo {PREFIX}/current/lib/python3*/site-packages/shim)"
    installed.run(f"""cd {folder} && {python} -I -c "{check}" {" ".join(sources)}""")


def test_uninstall_leaves_nothing_behind(
    installed: Host, base: tuple[Host, list[str], str]
) -> None:
    """What install and probe put on the host is gone again afterwards."""
    _, before, _ = base
    assert listing(installed) != before
    installed.run("/usr/local/bin/seccomp-shim probe")
    installed.run(f"{INSTALL} --uninstall")
    assert listing(installed) == before
    assert installed.run("test -e /run/seccomp-shim", code=1).stdout == ""


def test_uninstall_keeps_what_the_admin_made(host: Host) -> None:
    """Edited settings and the log outlive the program until they are purged."""
    host.run(f"{INSTALL} --no-demo --prefix /opt/elsewhere")
    host.run("echo 'on_error: deny' >>/etc/seccomp-shim/config.yaml")
    host.run("echo '{}' >>/var/log/seccomp-shim/audit.jsonl; touch /opt/elsewhere/note")
    said = host.run(f"{INSTALL} --uninstall --prefix /opt/elsewhere").stdout
    assert said.count("Kept:") == 3
    assert host.run("ls -A /opt/elsewhere").stdout == "note\n"
    assert host.run("tail -n 1 /etc/seccomp-shim/config.yaml").stdout == "on_error: deny\n"
    assert host.run("cat /var/log/seccomp-shim/audit.jsonl").stdout == "{}\n"
    host.run(f"{INSTALL} --uninstall --prefix /opt/elsewhere", code=2)
    host.run(f"{INSTALL} --uninstall --purge --prefix /opt/elsewhere")
    host.run("test ! -e /etc/seccomp-shim && test ! -e /var/log/seccomp-shim")


def test_a_purge_of_what_is_kept_spares_an_installation(installed: Host) -> None:
    """Whoever mistypes the prefix is told the right one, and loses neither settings nor log."""
    installed.run("echo 'on_error: deny' >>/etc/seccomp-shim/config.yaml")
    before = listing(installed)
    failed = installed.run(f"{INSTALL} --uninstall --purge --prefix /opt/mistyped", code=2)
    assert f"no seccomp-shim is installed there, but in {PREFIX} (--prefix {PREFIX})" in (
        failed.stderr
    )
    assert listing(installed) == before


def test_files_of_the_admin_beside_the_settings_stay(host: Host) -> None:
    """Also where they have the names of the compiled settings, which go."""
    host.run("mkdir /etc/seccomp-shim; cd /etc/seccomp-shim; echo mine >config.json")
    host.run("printf 'settings\\non_error deny\\n' >/etc/seccomp-shim/config.lines")
    said = host.run(f"{INSTALL} --uninstall --purge").stdout
    assert "Kept, which are not the installation's: /etc/seccomp-shim/config.json\n" in said
    assert host.run("ls -A /etc/seccomp-shim").stdout == "config.json\n"


def test_a_failed_installation_leaves_nothing(host: Host) -> None:
    """Where pip fails on wheels that are none, what was begun is removed."""
    host.run("mkdir /opt/wheels; echo none >/opt/wheels/pip-1-py3-none-any.whl")
    before = listing(host)
    failed = host.run(f"{INSTALL} --wheels /opt/wheels --prefix /opt/elsewhere", code=2)
    assert "pip could not install" in failed.stderr
    assert listing(host) == before


def test_a_broken_interpreter_is_built_anew(installed: Host) -> None:
    """A version whose interpreter is gone is neither up to date nor in the way."""
    installed.run(f"for p in {PREFIX}/current/bin/python*; do ln -sfn /nowhere $p; done")
    assert "would be installed" in installed.run(f"{INSTALL} --dry-run").stdout
    done = installed.run(f"{INSTALL} --no-demo")
    assert "Installing seccomp-shim" in done.stdout
    assert done.stderr == ""
    installed.run("/usr/local/bin/seccomp-shim --version")


def test_settings_and_log_can_be_purged(host: Host) -> None:
    """An existing settings file survives the installation, and --purge takes it and the log."""
    host.run("mkdir /etc/seccomp-shim; echo 'on_error: deny' >/etc/seccomp-shim/config.yaml")
    host.run(f"{INSTALL} --no-demo; echo >/var/log/seccomp-shim/audit.jsonl")
    assert host.run("cat /etc/seccomp-shim/config.yaml").stdout == "on_error: deny\n"
    host.run(f"{INSTALL} --uninstall --purge")
    host.run("test ! -e /etc/seccomp-shim && test ! -e /var/log/seccomp-shim")


def test_log_readers_can_read_the_log(installed: Host) -> None:
    """Whoever is in group adm reads what root has logged, and nobody else does."""
    installed.run(f"echo no-json | {HOOK}")
    log = "/var/log/seccomp-shim/audit.jsonl"
    reader = "setpriv --reuid 65534 --regid 65534"
    adm = installed.run("getent group adm").stdout.split(":")[2]
    assert "no container state" in installed.run(f"{reader} --groups {adm} cat {log}").stdout
    installed.run(f"{reader} --clear-groups cat {log}", code=1)


def test_what_patching_left_is_told(installed: Host) -> None:
    """Uninstalling names profiles that stay patched and what rollback needs; --purge takes that."""
    profile, state = "/opt/p.json", "/var/lib/seccomp-shim"
    installed.run(f"cp {CHECKOUT}/profiles/docker/default.json {profile}")
    installed.run(f"seccomp-shim patch --all --yes --when always {profile}; test -d {state}/runs")
    patched = installed.run(f"sha256sum {profile}").stdout
    said = installed.run(f"{INSTALL} --uninstall").stdout
    assert "These profiles stay as seccomp-shim patched them:\n" in said
    assert f"\n  {profile}\n" in said
    assert f"Kept: {state}, which seccomp-shim rollback needs" in said
    said = installed.run(f"{INSTALL} --uninstall --purge").stdout
    assert f"\n  {profile}\n" in said
    assert f"Kept: {state}" not in said
    installed.run(f"test ! -e {state}")
    assert installed.run(f"sha256sum {profile}").stdout == patched


def test_profiles_that_were_rolled_back_are_not_named(installed: Host) -> None:
    """What rollback has given back, or somebody has changed since, is none that stays patched."""
    installed.run(f"for n in 1 2; do cp {CHECKOUT}/profiles/docker/default.json /opt/$n.json; done")
    installed.run("seccomp-shim patch --all --yes --when always /opt/1.json /opt/2.json || true")
    installed.run("echo >>/opt/2.json; seccomp-shim rollback /opt/1.json")
    said = installed.run(f"{INSTALL} --uninstall").stdout
    assert "/opt/1.json" not in said
    assert "/opt/2.json" not in said


def test_an_older_checkout_says_that_it_switches(installed: Host) -> None:
    """A version that was installed before is not said to be up to date: it is switched to."""
    installed.run(f"mkdir /opt/newer && cd {CHECKOUT} && cp -a {SOURCES} /opt/newer")
    first = installed.run(f"readlink {PREFIX}/current").stdout
    installed.run("echo >>/opt/newer/README.md; /opt/newer/install.sh --no-demo")
    said = installed.run(f"{INSTALL} --no-demo").stdout
    assert "up to date" not in said
    assert f"Switching seccomp-shim in {PREFIX} to what {CHECKOUT} has" in said
    assert installed.run(f"readlink {PREFIX}/current").stdout == first


def test_what_manages_many_hosts_comes_on_demand(installed: Host) -> None:
    """With --with fleet Ansible is beside the program, and stays at the next installation."""
    python = f"{PREFIX}/current/bin/python"
    installed.run(f"{python} -c 'import ansible_runner'", code=1)
    for words in ("--with fleet", ""):
        installed.run(f"{INSTALL} --no-demo {words}")
        installed.run(f"{python} -c 'import ansible_runner'")
        installed.run(f"test -x {PREFIX}/current/bin/ansible-playbook")


def test_hook_needs_no_environment(installed: Host) -> None:
    """The hook runs under the distribution's interpreter with nothing set, not even PATH."""
    text = installed.run(f"cat {HOOK}").stdout
    assert re.search(r"^shim_python='/usr/bin/python3\.\d+'$", text, re.MULTILINE)
    result = installed.run(f"echo no-json | env -i {HOOK}")
    assert "no container state on standard input" in result.stderr
    assert "no container state" in installed.run("cat /var/log/seccomp-shim/audit.jsonl").stdout


def test_python_of_a_version_manager_is_not_used(host: Host) -> None:
    """A python that comes first on the caller's PATH is passed over."""
    host.run("mkdir /opt/shims; printf '#!/bin/sh\\nexit 9\\n' >/opt/shims/python3")
    host.run("chmod 755 /opt/shims/python3")
    environment = {**os.environ, "PATH": f"/opt/shims:{os.environ['PATH']}"}
    python = host.run(f"{INSTALL} --python", env=environment).stdout.strip()
    assert re.fullmatch(r"/usr/bin/python3\.\d+", python)


def test_failed_upgrade_leaves_the_old_version_at_work(installed: Host) -> None:
    """When pip fails, the installed version stays as it was and no half of a new one remains."""
    installed.run(f"mkdir /opt/newer && cd {CHECKOUT} && cp -a {SOURCES} /opt/newer")
    installed.run("echo 'broken = [' >>/opt/newer/pyproject.toml")
    before = listing(installed)
    failed = installed.run("/opt/newer/install.sh --no-demo", code=2)
    assert "pip could not install" in failed.stderr
    assert listing(installed) == before
    installed.run("/usr/local/bin/seccomp-shim --version")


def test_upgrade_keeps_the_version_that_hooks_may_still_run(installed: Host) -> None:
    """An upgrade switches to the new version and keeps the one before, and only that one."""
    installed.run(f"mkdir {PREFIX}/versions/ancient")
    first = installed.run(f"readlink {PREFIX}/current").stdout.strip()
    installed.run(f"mkdir /opt/newer && cd {CHECKOUT} && cp -a {SOURCES} /opt/newer")
    installed.run("echo >>/opt/newer/README.md; /opt/newer/install.sh --no-demo")
    second = installed.run(f"readlink {PREFIX}/current").stdout.strip()
    kept = installed.run(f"cd {PREFIX} && echo versions/*").stdout.split()
    assert first != second
    assert sorted(kept) == sorted([first, second])
    assert second in installed.run(f"cat {HOOK}").stdout


def test_the_wrapper_is_installed_beside_the_hook(installed: Host) -> None:
    """Every executable is whole, root's and in its place; the links say which runtime is meant."""
    names = "runtime runc crun precreate hook verify"
    places = " ".join(f"{PREFIX}/bin/seccomp-shim-{name}" for name in names.split())
    assert set(installed.run(f"stat -L -c '%u:%g %a' {places}").stdout.splitlines()) == {"0:0 755"}
    assert installed.run(f"grep -l '@[A-Z_]*@' {places}", code=1).stdout == ""
    for name in ("runc", "crun"):
        link = installed.run(f"readlink {PREFIX}/bin/seccomp-shim-{name}").stdout
        assert link == "seccomp-shim-runtime\n"
    shown = installed.run(f"env -i PATH=/x {PREFIX}/bin/seccomp-shim-runtime --version").stdout
    assert shown == installed.run("$(command -v runc || command -v crun) --version").stdout


def test_the_wrapper_reads_the_settings_of_this_host(installed: Host) -> None:
    """With nothing set in the environment, an edit of the settings holds for the next call."""
    wrapper = f"env -i {PREFIX}/bin/seccomp-shim-runtime"
    installed.run("printf '#!/bin/sh\\necho mine\\n' >/opt/mine; chmod 755 /opt/mine")
    installed.run("echo 'runtimes: {mine: /opt/mine}' >>/etc/seccomp-shim/config.yaml")
    for _ in range(2):  # compiled on the first call, kept for the second
        assert installed.run(f"{wrapper} state x").stdout == "mine\n"
    installed.run("grep -qx 'runtime mine /opt/mine' /etc/seccomp-shim/config.lines")
    assert "runtimes: mine: /opt/mine" in installed.run("seccomp-shim config").stdout


def test_uninstall_refuses_while_an_engine_names_the_hook(installed: Host) -> None:
    """Removing a hook that an engine still calls would stop every container from starting."""
    entry = "/etc/containers/oci/hooks.d/shim.json"
    installed.run("mkdir -p /etc/containers/oci/hooks.d")
    installed.run(f"""echo '{{"hook": {{"path": "{HOOK}"}}}}' >{entry}""")
    assert entry in installed.run(f"{INSTALL} --uninstall", code=2).stderr
    installed.run(f"test -x {HOOK} && rm {entry} && {INSTALL} --uninstall")


def test_uninstall_names_the_verb_that_frees_an_engine(installed: Host) -> None:
    """While an engine is registered the program stays, and says what to run first."""
    installed.run("rm -rf /etc/docker; seccomp-shim install docker --no-reload")
    said = installed.run(f"{INSTALL} --uninstall", code=2).stderr
    assert "run  seccomp-shim uninstall docker  first" in said
    installed.run("rm -rf /var/lib/seccomp-shim")
    said = installed.run(f"{INSTALL} --uninstall", code=2).stderr
    assert "/etc/docker/daemon.json: still names" in said
    assert "run  seccomp-shim uninstall docker  first" in said
    installed.run(f"seccomp-shim uninstall docker && {INSTALL} --uninstall")
    installed.run("test ! -e /etc/docker/daemon.json && test ! -e /var/lib/seccomp-shim")


# What CRI-O's socket answers (server/inspect.go): the handlers of the running daemon.
CRIO = """
import http.server, os, socketserver
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(open("/opt/crio.toml", "rb").read())
    def address_string(self):
        return "crio"
os.makedirs("/var/run/crio", exist_ok=True)
socketserver.UnixStreamServer("/var/run/crio/crio.sock", Handler).serve_forever()
"""
STILL = "crio still has it in memory, or containers run that were started by it: restart crio"


def test_uninstall_waits_for_a_crio_that_has_the_handler(
    tmp_path: Path, base: tuple[Host, list[str], str]
) -> None:
    """Taken out of its files, the handler is known until the restart; then its containers count."""
    need.program("crun")
    with throwaway(tmp_path, base[0], pids=True) as host:
        host.run("seccomp-shim install crio --no-default")
        said = host.run(f"{INSTALL} --uninstall", code=2).stderr
        assert "run  seccomp-shim uninstall crio  first" in said
        host.run("cat /etc/crio/crio.conf.d/*seccomp-shim.conf >/opt/crio.toml; mkfifo /opt/fifo")
        host.run(
            f"cat >/opt/crio.py <<'END'\n{CRIO}END\n"
            "/usr/bin/python3 /opt/crio.py >/dev/null 2>&1 & echo $! >/opt/crio.pid\n"
            "set -e; until [ -S /var/run/crio/crio.sock ]; do kill -0 $!; sleep 0.1; done\n"
            "seccomp-shim uninstall crio"
        )
        assert STILL in host.run(f"{INSTALL} --uninstall", code=2).stderr
        host.run(
            "kill $(cat /opt/crio.pid); rm /var/run/crio/crio.sock; cp /bin/sh /opt/conmon\n"
            f"/opt/conmon -c 'read x; :' -r {PREFIX}/bin/seccomp-shim-crun "
            "<>/opt/fifo >/dev/null 2>&1 & echo $! >/opt/conmon.pid"
        )
        assert STILL in host.run(f"{INSTALL} --uninstall", code=2).stderr
        host.run(f"test -x {HOOK}; kill $(cat /opt/conmon.pid); {INSTALL} --uninstall")
        host.run(f"! test -e {PREFIX}/bin/seccomp-shim-runtime")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("--prefix", "--prefix needs a directory"),
        ("--prefix opt", "absolute path"),
        ("--prefix /", "not a usable directory name"),
        ("--prefix '/opt/a b'", "not a usable directory name"),
        ("--prefix /opt/../etc", "not a usable directory name"),
        ("--prefix /etc", "holds something else"),
        ("--prefix /etc --dry-run", "holds something else"),
        ("--prefix /etc/passwd --dry-run", "/etc/passwd: is no directory"),
        ("--prefix /etc/passwd/x", "/etc/passwd: is no directory"),
        ("--wheels /nonexist", "--wheels /nonexist: no such directory"),
        ("--wheels /etc", "--wheels /etc: no wheel of pip is there"),
        ("--purge", "--purge goes with --uninstall"),
        ("--uninstall", "no seccomp-shim is installed there"),
        ("--uninstall --purge", "no seccomp-shim is installed there"),
        ("--frobnicate", "unknown option --frobnicate"),
        ("--with flot", "there are fleet and metrics"),
    ],
)
def test_unusable_arguments_change_nothing(host: Host, arguments: str, complaint: str) -> None:
    """A wrong call is answered with one line and exit status 2, and touches no file."""
    before = listing(host)
    result = host.run(f"{INSTALL} {arguments}", code=2)
    assert complaint in result.stderr
    assert result.stderr.count("\n") == 1
    assert listing(host) == before


def test_needs_root(host: Host) -> None:
    """An ordinary user is told to use sudo, and may read the help."""
    user = "setpriv --reuid 65534 --regid 65534 --clear-groups"
    assert "needs root" in host.run(f"{user} {INSTALL}", code=2).stderr
    assert "--uninstall" in host.run(f"{user} {INSTALL} --help").stdout


def test_the_help_names_every_directory() -> None:
    """Whatever directory of the system's the installer makes or removes is told before."""
    text = Path(INSTALL).read_text()
    told, done = text.split("\nEOF\n", 1)
    places = set(re.findall(r"/(?:etc|run|var/\w+)/seccomp-shim\b", done))
    assert len(places) == 4
    assert all(f"\n  {place}/" in told for place in places)


def test_foreign_command_of_the_same_name_is_not_replaced(host: Host) -> None:
    """A seccomp-shim on PATH that this installer did not put there is left alone."""
    host.run("mkdir -p /usr/local/bin; echo mine >/usr/local/bin/seccomp-shim")
    assert "is not ours" in host.run(f"{INSTALL} --no-demo", code=2).stderr
    assert host.run("cat /usr/local/bin/seccomp-shim").stdout == "mine\n"
