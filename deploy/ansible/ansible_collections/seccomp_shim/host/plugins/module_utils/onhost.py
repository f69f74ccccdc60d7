"""What the modules have in common on the managed host: payload, interpreter, question.

Written for the oldest Python that Ansible runs modules on, unlike the payload.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import sys
import tempfile
import time
import zipfile

NEEDED = (3, 11)
_KNOWN = ((3, 14), (3, 13), (3, 12), (3, 11))
_ASK = "import sys; sys.path[:0] = sys.argv[1:]; from shim.agent.main import main; main()"
_DAY = 24 * 60 * 60

ARGUMENTS = {
    "payload": {"type": "str"},
    "payload_file": {"type": "path"},
}


def ask(module, question):
    """Return the answer to a question (see shim/agent/main.py), or end the module with one line."""
    directory = unpacked(module)
    command = [
        python(module),
        "-I",
        "-S",
        "-c",
        _ASK,
        directory,
        os.path.join(directory, "libraries"),
    ]
    code, out, err = module.run_command(command, data=json.dumps(question), cwd="/")
    try:
        answer = json.loads(out)
    except ValueError:
        lines = err.strip().splitlines() or ["it ended with %d and said nothing" % code]
        module.fail_json(msg="seccomp-shim could not be run on this host: %s" % lines[-1])
    if "error" in answer:
        module.fail_json(msg=answer["error"])
    return answer


def python(module):
    """Return the path of a Python that is new enough, or end the module."""
    if sys.version_info >= NEEDED and sys.executable:
        return sys.executable
    for major, minor in _KNOWN:
        path = "/usr/bin/python%d.%d" % (major, minor)
        if os.access(path, os.X_OK):
            return path
    return module.fail_json(
        msg="this host has Python %d.%d, and no newer one in /usr/bin; seccomp-shim needs %d.%d: "
        "install a package such as python3.11 beside it (the system's own stays as it is)"
        % (sys.version_info[:2] + NEEDED)
    )


def unpacked(module):
    """Return the directory of the payload; where it is not there yet, ask for it or unpack it."""
    wanted = module.params["payload"]
    if not wanted:
        module.fail_json(msg="this module runs by its action plugin only: use its full name")
    try:
        store = _store()
        directory = os.path.join(store, wanted)
        if os.path.isdir(directory):
            return directory
        if not module.params["payload_file"]:
            module.exit_json(changed=False, payload_wanted=True)
        _unpack(module, directory)
    except (OSError, zipfile.BadZipFile) as error:
        module.fail_json(msg="the payload cannot be kept on this host: %s" % error)
    return directory


def _store():
    """Return the directory where payloads are kept; OSError: it is one that others may write to.

    Root's is in memory: it works where the disk is full, and a crash leaves no half file in it.
    """
    uid = os.geteuid()
    top = "/run/seccomp-shim" if uid == 0 else os.path.expanduser("~/.cache/seccomp-shim")
    store = os.path.join(top, "payload")
    os.makedirs(os.path.dirname(top), exist_ok=True)
    for each in (top, store):
        try:
            os.mkdir(each)
            os.chmod(each, 0o755 if uid == 0 else 0o700)
        except FileExistsError:
            pass
        info = os.lstat(each)
        if not stat.S_ISDIR(info.st_mode) or info.st_uid != uid or info.st_mode & 0o022:
            raise OSError("%s can be written to by others, or is no directory" % each)
    return store


def _unpack(module, directory):
    """Unpack the payload that was sent to ``directory``, whole or not at all; forget old ones."""
    source = module.params["payload_file"]
    with open(source, "rb") as file:
        data = file.read()
    if hashlib.sha256(data).hexdigest() != os.path.basename(directory):
        raise OSError("%s is not what was sent" % source)
    store = os.path.dirname(directory)
    os.umask(0o022)
    draft = tempfile.mkdtemp(prefix=".new-", dir=store)
    try:
        with zipfile.ZipFile(source) as archive:
            archive.extractall(os.path.join(draft, "all"))
        os.rename(os.path.join(draft, "all"), directory)
    except OSError:
        # Another one, for the same host by another name, was faster.
        if not os.path.isdir(directory):
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    for name in os.listdir(store):
        other = os.path.join(store, name)
        if other != directory and os.lstat(other).st_mtime < time.time() - _DAY:
            shutil.rmtree(other, ignore_errors=True)


def shown(module, answer):
    """Return the diff as Ansible wants it, if it was asked for."""
    return {"diff": {"prepared": answer["diff"]}} if module._diff and answer["diff"] else {}


def summary(problems):
    """Put problems into one line."""
    more = "" if len(problems) == 1 else " (and %d more: see problems)" % (len(problems) - 1)
    return problems[0] + more
