"""What travels to the hosts, and the action that takes it there.

The payload is a zip of this controller's own seccomp-shim, laid out as install.sh needs it, and of
two pure Python libraries. It goes to a host once: the host keeps it under its checksum, and every
task first asks there for that checksum, which costs no round trip of its own.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import io
import zipfile
from pathlib import Path

from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase

from ansible import constants

# Of the project's own top directory; the wheel has the files as data of the package.
_FOLDERS = ("deploy/ansible/ansible_collections", "hooks", "profiles")
_FILES = ("LICENSE", "README.md", "install.sh", "pyproject.toml")
# Pure Python as far as it is needed: YAML profiles and settings, and the log of what is installed.
_LIBRARIES = ("yaml", "structlog")
_REASONS = ("No space left on device", "Read-only file system", "Permission denied")
_EPOCH = (1980, 1, 1, 0, 0, 0)


class Action(ActionBase):
    """Runs the module of its own name; brings the payload where the host lacks it."""

    def run(self, tmp=None, task_vars=None):
        """Run the module once, or where the host lacks the payload a second time with it."""
        super().run(tmp, task_vars)
        archive = payload()
        arguments = {**self._task.args, "payload": archive.stem}
        try:
            result = self._execute_module(module_args=arguments, task_vars=task_vars)
            if result.get("payload_wanted"):
                arguments["payload_file"] = self._sent(archive)
                result = self._execute_module(module_args=arguments, task_vars=task_vars)
        finally:
            self._remove_tmp_path(self._connection._shell.tmpdir)
        return _readable(result)

    def _sent(self, archive):
        """Send the payload, and have the user that the module runs as read it; give its place."""
        try:
            directory = self._make_tmp_path()
            place = self._connection._shell.join_path(directory, "payload.zip")
            self._transfer_file(str(archive), place)
            self._fixup_perms2((directory, place))
        except AnsibleConnectionFailure:
            raise
        except AnsibleError as error:
            said = " ".join(str(error).split())
            # Ansible names temporary files and what dd has counted before and after the reason.
            reason = next((each for each in _REASONS if each in said), said)
            raise AnsibleActionFail(
                f"the payload could not be sent to this host: {reason}"
            ) from None
        return place


def payload():
    """Return the path of the zip, made once in each run of Ansible; its stem is its SHA-256."""
    directory = Path(constants.DEFAULT_LOCAL_TMP) / "seccomp-shim"
    directory.mkdir(exist_ok=True)
    with open(directory / "lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for made in directory.glob("*.zip"):
            return made
        data = _zipped(dict(_contents()))
        archive = directory / f"{hashlib.sha256(data).hexdigest()}.zip"
        draft = archive.with_suffix(".new")
        draft.write_bytes(data)
        draft.rename(archive)
        return archive


def _contents():
    """Yield all files of the payload: name in it, path here."""
    package = _package(
        "shim", "install seccomp-shim where ansible runs: pip install DIR, its checkout"
    )
    yield from _sources(package, "shim", "_data")
    data = package / "_data"
    top = data if data.is_dir() else package.parent
    for name in _FOLDERS:
        for path in sorted((top / name).rglob("*")):
            if path.is_file() and path.parent.name != "__pycache__":
                yield f"{name}/{path.relative_to(top / name)}", path
    for name in _FILES:
        path = (data / "project" if data.is_dir() else top) / name
        if path.is_file():
            yield name, path
    for name in _LIBRARIES:
        yield from _sources(_package(name, f"pip install {name}"), f"libraries/{name}")


def _package(name, hint):
    found = importlib.util.find_spec(name)
    if found is None or not found.origin:
        raise AnsibleActionFail(f"the Python that runs ansible has no package {name}: {hint}")
    return Path(found.origin).parent


def _sources(directory, name, *without):
    for path in sorted(directory.rglob("*")):
        inside = path.relative_to(directory)
        if path.suffix in (".py", ".j2", ".tsv") and inside.parts[0] not in without:
            yield f"{name}/{inside}", path


def _zipped(files):
    """Make the zip; the same files give the same bytes, whenever and wherever."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            info = zipfile.ZipInfo(name, _EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, files[name].read_bytes())
    return buffer.getvalue()


def _readable(result):
    """Make one line of a module that could not even start: Ansible has it in its output only."""
    said = f"{result.get('module_stderr', '')}\n{result.get('module_stdout', '')}"
    if result.get("failed") and said.strip():
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        # A traceback's last line is the error.
        errors = [line for line in lines if "Error" in line.split(":")[0]]
        result["msg"] = f"the module could not be run on this host: {(errors or lines)[-1]}"
        for key in ("exception", "module_stderr", "module_stdout"):
            result.pop(key, None)
    return result
