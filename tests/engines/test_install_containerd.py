import json
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from engines import registration, user_lands
from engines.registration import BIN, install, uninstall
from engines.tomls import texts
from shim.engines import toml
from shim.engines.containerd import config_file
from shim.engines.registration import executable
from shim.errors import ShimError

CHECKOUT = Path(__file__).parents[2]
CRI = "io.containerd.grpc.v1.cri"
RUNTIMES = ("plugins", CRI, "containerd", "runtimes")
RUNC = {"runtime_type": "io.containerd.runc.v2"}
OURS = {**RUNC, "options": {"BinaryName": f"{BIN}/seccomp-shim-runc"}}

DEBIAN = """\
version = 2

[plugins]
  [plugins."io.containerd.grpc.v1.cri"]
    [plugins."io.containerd.grpc.v1.cri".cni]
      bin_dir = "/usr/lib/cni"
      conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.internal.v1.opt"]
    path = "/var/lib/containerd/opt"
"""
KUBEADM = """\
# written by hand; [plugins] is below
version = 2
root = '/srv/containerd'  # a large disk

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "registry.example/pause:3.9"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    # default_runtime_name = "runsc"
    default_runtime_name = "runc"    # of the cluster
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes]
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
        runtime_type = "io.containerd.runc.v2"
        base_runtime_spec = "/etc/containerd/cri-base.json"
        [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
          SystemdCgroup = true
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.kata]
        runtime_type = "io.containerd.kata.v2"

[debug]
  level = "info"
"""
VERSION_3 = """\
version = 3
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = 'io.containerd.runc.v2'
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
    SystemdCgroup = true
"""
FILES = {
    "absent": None,
    "empty": "",
    "comments only": "# nothing yet\n",
    "Debian's": DEBIAN,
    "by hand": KUBEADM,
    "version 3": VERSION_3,
    "version 3 without runtimes": "version = 3\n",
    "no line feed at the end": KUBEADM.rstrip("\n"),
    "CRLF": KUBEADM.replace("\n", "\r\n"),
}


@pytest.fixture(params=FILES)
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return a root directory with one of the files."""
    return _root(tmp_path, FILES[request.param])


def _root(root: Path, text: str | None) -> Path:
    if text is not None:
        (root / "etc/containerd").mkdir(parents=True)
        (root / "etc/containerd/config.toml").write_bytes(text.encode())
    return root


def _config(root: Path) -> dict[str, Any]:
    return tomllib.loads((root / "etc/containerd/config.toml").read_bytes().decode())


@pytest.mark.parametrize("words", [(), ("--default",)])
def test_uninstall_gives_the_same_bytes_back(root: Path, words: tuple[str, ...]) -> None:
    """What install did to any kind of file, also twice, uninstall undoes to the last byte."""
    before = registration.files(root / "etc")
    host = registration.host(root)
    assert install("containerd", host, *words).edits
    after = registration.files(root / "etc")
    assert after != before
    install("containerd", host, *words)
    assert registration.files(root / "etc") == after
    uninstall("containerd", host)
    assert registration.files(root / "etc") == before
    assert (root / "etc/containerd").exists() == bool(before)


def test_everything_else_stays_as_it_is(root: Path) -> None:
    """Install adds the handler, and runc where none was named, and changes nothing else."""
    path = root / "etc/containerd/config.toml"
    before = path.read_bytes().decode() if path.exists() else ""
    document = tomllib.loads(before)
    install("containerd", registration.host(root))
    text = path.read_bytes().decode()
    assert text.startswith(before)
    after = tomllib.loads(text)
    plugin = "io.containerd.cri.v1.runtime" if document.get("version") == 3 else CRI
    runtimes = after["plugins"][plugin]["containerd"]["runtimes"]
    known = toml.look_up(document, ("plugins", plugin, "containerd", "runtimes"))
    if known is None:
        known = {"runc": RUNC} if plugin == CRI else {}
    ours = runtimes.pop("seccomp-shim")
    assert runtimes == known
    model = known.get("runc", RUNC)
    assert ours.pop("options") == model.get("options", {}) | OURS["options"]
    assert ours == {key: value for key, value in model.items() if key != "options"}
    assert {**after, "plugins": 0, "version": 0} == {**document, "plugins": 0, "version": 0}


def test_the_default_is_ours_while_installed(tmp_path: Path) -> None:
    """--default names our handler in the line that names the default, whose comment stays."""
    root = _root(tmp_path, KUBEADM)
    host = registration.host(root)
    install("containerd", host, "--default")
    text = (root / "etc/containerd/config.toml").read_text()
    assert '    default_runtime_name = "seccomp-shim"    # of the cluster\n' in text
    assert registration.status("containerd", host)["default"] is True


@pytest.mark.parametrize("words", [(), ("--default",)])
def test_only_ours_is_taken_out_of_a_file_edited_since(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    """Where the admin has written more since, that stays and only our entries go."""
    root = _root(tmp_path, KUBEADM)
    path = root / "etc/containerd/config.toml"
    host = registration.host(root)
    install("containerd", host, *words)
    more = '\n# mine\n[metrics]\n  address = "127.0.0.1:1338"\n'
    path.write_text(path.read_text().replace('"info"', '"debug"') + more)
    uninstall("containerd", host)
    assert path.read_text() == KUBEADM.replace('"info"', '"debug"') + more


def test_ours_is_taken_out_where_no_record_is_left(tmp_path: Path) -> None:
    """Without the record of what was there, our tables, and the runc that we named, still go."""
    root = _root(tmp_path, DEBIAN)
    host = registration.host(root)
    install("containerd", host, "--default")
    shutil.rmtree(host.state)
    uninstall("containerd", host)
    document = _config(root)
    assert document["plugins"][CRI].pop("containerd", {}) == {}
    assert document == tomllib.loads(DEBIAN)


def test_runc_that_somebody_completed_stays(tmp_path: Path) -> None:
    """The runc handler that we named is the admin's once there is more in it."""
    root = _root(tmp_path, DEBIAN)
    host = registration.host(root)
    install("containerd", host)
    path = root / "etc/containerd/config.toml"
    header = '[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]'
    path.write_text(path.read_text() + f"{header}\nSystemdCgroup = true\n")
    uninstall("containerd", host)
    assert toml.look_up(_config(root), RUNTIMES) == {
        "runc": {**RUNC, "options": {"SystemdCgroup": True}}
    }


@given(texts(), st.booleans(), st.booleans())
def test_any_text_is_what_it_was_after_both(text: str, default: bool, named: bool) -> None:
    """What is put into any valid file is all in it, and taken out gives the old file's bytes."""
    end = "\r\n" if "\r\n" in text else "\n"
    text = f"version = 2{end}{text}"
    if named:
        text += KUBEADM.partition("\n\n")[2].replace("\n", end)
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return  # both name the same table
    path = Path("config.toml")
    file = config_file.ConfigFile(path, text.encode(), text, document, 2)
    try:
        edit = config_file.main_edit(file, config_file.Wanted({"seccomp-shim": OURS}, default))
    except ShimError:
        assert not isinstance(document.get("plugins", {}), dict) or "{" in text
        return
    assert edit.after is not None
    after = tomllib.loads(edit.after.decode())
    assert toml.look_up(after, (*RUNTIMES, "seccomp-shim")) == OURS
    left = config_file.without(path, edit.after, text.encode())
    assert left is not None
    assert tomllib.loads(left.decode()) in (document, _with_table(document))
    if named or not default:
        assert left == text.encode()


def _with_table(document: dict[str, Any]) -> dict[str, Any]:
    """Return the document with the table, empty now, in which our default stood."""
    plugins = {CRI: {"containerd": {}}, **document.get("plugins", {})}
    return {**document, "plugins": plugins}


def test_a_symbolic_link_stays_one(tmp_path: Path) -> None:
    """Where config.toml is a link, the file that it leads to is changed and given back."""
    root = _root(tmp_path, None)
    (root / "etc/containerd").mkdir(parents=True)
    (root / "srv").mkdir()
    (root / "srv/real.toml").write_text(DEBIAN)
    (root / "etc/containerd/config.toml").symlink_to("../../srv/real.toml")
    host = registration.host(root)
    before = registration.files(root / "etc")
    install("containerd", host)
    assert registration.files(root / "etc") == before
    assert "seccomp-shim" in (root / "srv/real.toml").read_text()
    uninstall("containerd", host)
    assert (root / "srv/real.toml").read_text() == DEBIAN


def test_the_handler_is_like_the_default_one(tmp_path: Path) -> None:
    """With a crun of its own as the default handler's program, that very one is called."""
    text = KUBEADM.replace("SystemdCgroup = true", 'BinaryName = "/usr/local/bin/crun"')
    registration.program(tmp_path / "usr/local/bin", "crun", "exit 1")
    install("containerd", registration.host(_root(tmp_path, text)))
    ours = toml.look_up(_config(tmp_path), (*RUNTIMES, "seccomp-shim"))
    script = f"{BIN}/seccomp-shim-containerd-runc"
    assert ours["options"] == {"BinaryName": script}
    assert executable.real_of(Path(f"{tmp_path}{script}")) == "/usr/local/bin/crun"


INLINE = f'version = 2\nplugins = {{ "{CRI}" = {{ containerd = {{ runtimes = {{}} }} }} }}\n'


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("version = 2\n[plugins\n", "is not valid TOML: "),
        ("version = 2\n\0", "is not valid TOML: "),
        ('[plugins.cri]\nsandbox_image = "x"\n', "configuration of version 1"),
        ("version = 4\n", "configuration of version 4"),
        ('disabled_plugins = ["cri"]\nversion = 2\n', "disables the CRI service"),
        (INLINE, "inline"),
        ("version = 2\nplugins = 1\n", "plugins must be a table"),
        ("version = 2\nimports = 1\n", "imports must be a list"),
        (f'version = 2\n[plugins."{CRI}".containerd]\nruntimes = []\n', "runtimes must be a table"),
    ],
)
def test_what_cannot_be_extended_is_left_untouched(
    tmp_path: Path, text: str, complaint: str
) -> None:
    """Invalid, too old, without CRI, or inline: one line says so, and nothing is written."""
    root = _root(tmp_path, text)
    host = registration.host(root)
    before = registration.files(root)
    with pytest.raises(ShimError, match=complaint) as caught:
        install("containerd", host)
    assert str(caught.value).startswith(f"{root}/etc/containerd/config.toml: ")
    assert registration.files(root) == before


def test_an_import_that_would_hide_the_handler_is_named(tmp_path: Path) -> None:
    """For containerd 1.x an imported file takes the CRI section over: it is named as the place."""
    root = _root(tmp_path, 'version = 2\nimports = ["conf.d/*.toml"]\n')
    imported = root / "etc/containerd/conf.d/gpu.toml"
    imported.parent.mkdir()
    imported.write_text(KUBEADM)
    host = registration.host(root)
    with pytest.raises(ShimError, match=f"register there: --config {imported}"):
        install("containerd", host)
    install("containerd", host, "--config", "/etc/containerd/conf.d/gpu.toml")
    assert "seccomp-shim" in imported.read_text()
    uninstall("containerd", host, "--config", "/etc/containerd/conf.d/gpu.toml")
    assert imported.read_text() == KUBEADM


def test_containerd_2_gets_a_file_of_ours_where_it_imports_it(tmp_path: Path) -> None:
    """To containerd 2.x, which merges imported files, the main file stays as it is."""
    text = VERSION_3.replace("version = 3\n", 'version = 3\nimports = ["/x", "conf.d/*.toml"]\n')
    root = _root(tmp_path, text)
    registration.program(root / "bin", "containerd", "[ $1 = --version ] && echo containerd v2.1.9")
    host = registration.host(root, str(root / "bin"))
    install("containerd", host, "--default")
    assert (root / "etc/containerd/config.toml").read_text() == text
    ours = tomllib.loads((root / "etc/containerd/conf.d/90-seccomp-shim.toml").read_text())
    cri = ours["plugins"]["io.containerd.cri.v1.runtime"]["containerd"]
    assert cri["default_runtime_name"] == "seccomp-shim"
    assert cri["runtimes"]["seccomp-shim"]["options"]["SystemdCgroup"] is True
    uninstall("containerd", host)
    assert not (root / "etc/containerd/conf.d").exists()


def test_an_executable_that_is_not_there_is_not_named(tmp_path: Path) -> None:
    """Without the wrapper pods could not start: one line says what to do, nothing is done."""
    root = _root(tmp_path, DEBIAN)
    host = registration.host(root)
    shutil.rmtree(root / "opt")
    before = registration.files(root)
    with pytest.raises(ShimError, match="is not there"):
        install("containerd", host)
    assert registration.files(root) == before


def test_the_runtime_class_asks_for_our_handler() -> None:
    """The manifest that next steps name is a RuntimeClass of the handler that install adds."""
    manifest = CHECKOUT / "deploy/kubernetes/base/runtimeclass.yaml"
    document = yaml.safe_load(manifest.read_text())
    assert (document["apiVersion"], document["kind"]) == ("node.k8s.io/v1", "RuntimeClass")
    assert document["handler"] == config_file.NAME


def test_status_tells_of_a_program_that_is_gone(tmp_path: Path) -> None:
    """A handler whose program is not there is a problem; without a handler there is none."""
    root = _root(tmp_path, DEBIAN)
    host = registration.host(root)
    assert registration.status("containerd", host)["registered"] is False
    install("containerd", host)
    status = registration.status("containerd", host)
    assert (status["registered"], status["default"], status["problems"]) == (True, False, [])
    (root / "opt/seccomp-shim/bin/seccomp-shim-runc").unlink()
    status = registration.status("containerd", host)
    assert "is not there" in status["problems"][0]
    json.dumps(status)


def _dump(program: str, path: Path) -> dict[str, Any]:
    done = subprocess.run(
        [program, "--config", str(path), "config", "dump"],
        capture_output=True,
        text=True,
        check=True,
    )
    return tomllib.loads(done.stdout)


def _cri(document: dict[str, Any]) -> dict[str, Any]:
    for plugin in ("io.containerd.cri.v1.runtime", CRI):
        found = toml.look_up(document, ("plugins", plugin, "containerd"))
        if found:
            assert isinstance(found, dict)
            return found
    raise AssertionError


@pytest.mark.parametrize("user_land", user_lands.NAMES)
@pytest.mark.parametrize(
    "kind", ["Debian's", "by hand", "version 3", "version 3 without runtimes", "importing"]
)
def test_a_real_containerd_reads_it_so(user_land: str, kind: str, tmp_path: Path) -> None:
    """What each containerd makes of the file differs by the handler, its default, nothing else."""
    program = user_lands.program(user_land, "/usr/bin/containerd")
    text = FILES.get(kind) or KUBEADM.replace("root =", 'imports = ["conf.d/*.toml"]\nroot =')
    if "version = 3" in text and b"containerd/v2" not in subprocess.check_output(
        [program, "--version"]
    ):
        return  # 1.x reads version 2 only
    root = _root(tmp_path, text)
    path = root / "etc/containerd/config.toml"
    before = _dump(program, path)
    install("containerd", registration.host(root, str(Path(program).parent)), "--default")
    after = _dump(program, path)
    cri = _cri(after)
    ours = cri["runtimes"].pop("seccomp-shim")
    assert cri["default_runtime_name"] == "seccomp-shim"
    cri["default_runtime_name"] = "runc"
    model = _cri(before)["runtimes"]["runc"]
    assert ours["options"].pop("BinaryName") == f"{BIN}/seccomp-shim-runc"
    assert _set(ours["options"]) == _set(model.get("options", {}))
    assert _set(ours) == _set(model)
    assert _set(after) == _set(before)


def _set(table: dict[str, Any]) -> dict[str, Any]:
    """Leave out what says nothing: zero, and the only mode of sandboxes that 1.7 has."""
    inner = {key: _set(each) if isinstance(each, dict) else each for key, each in table.items()}
    return {k: v for k, v in inner.items() if v not in ("", 0, False, [], {}, "podsandbox")}
