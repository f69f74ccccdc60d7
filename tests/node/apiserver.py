"""A stand-in for the one thing that a node's pod asks a Kubernetes API server.

A real one cannot be had here. This one answers over TLS, to the right token only, about one
DaemonSet: GET, and a watch that first tells what there is and then each change.
"""

import json
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from support import need

NAMESPACE, NAME, TOKEN = "seccomp-shim", "seccomp-shim", "a.token"
_PATH = f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets"
_OBJECT = {"kind": "DaemonSet", "apiVersion": "apps/v1", "metadata": {"name": NAME}}


class ApiServer(ThreadingHTTPServer):
    """The server; ``account`` is the directory that a kubelet would mount into the pod."""

    daemon_threads = True

    def __init__(self, account: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.account = account
        self.refuses = False
        self.watched = threading.Event()
        self._there = True
        self._changed = threading.Condition()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(account.parent / "cert.pem", account.parent / "key.pem")
        self.socket = context.wrap_socket(self.socket, server_side=True)

    @property
    def environment(self) -> dict[str, str]:
        """What every pod has in its environment."""
        host, port = self.server_address[:2]
        return {"KUBERNETES_SERVICE_HOST": str(host), "KUBERNETES_SERVICE_PORT": str(port)}

    def remove(self, *, rights: bool) -> None:
        """Remove the DaemonSet; ``rights``: and then the pod's right to ask, as kubectl does."""
        with self._changed:
            self._there = False
            self.refuses = rights
            self._changed.notify_all()

    def object(self) -> dict[str, Any] | None:
        """Return what there is."""
        return _OBJECT if self._there else None

    def events(self) -> Iterator[dict[str, Any]]:
        """Yield what a watch is told, until the DaemonSet is removed."""
        with self._changed:
            if not self._there:
                return
            yield {"type": "ADDED", "object": _OBJECT}
            self.watched.set()
            self._changed.wait()
            yield {"type": "DELETED", "object": _OBJECT}


class _Handler(BaseHTTPRequestHandler):
    server: ApiServer

    def do_GET(self) -> None:
        """Answer as the API server would."""
        where = urlsplit(self.path)
        words = parse_qs(where.query)
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            self._answer(401, {})
        elif self.server.refuses:
            self._answer(403, {})
        elif where.path == f"{_PATH}/{NAME}":
            found = self.server.object()
            self._answer(200 if found else 404, found or {})
        # The rule names the object: a watch of all that are there is forbidden.
        elif where.path == _PATH and words["fieldSelector"] == [f"metadata.name={NAME}"]:
            self._head(200)
            for event in self.server.events():
                self.wfile.write(json.dumps(event).encode() + b"\n")
        else:
            self._answer(403, {})

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""

    def _answer(self, code: int, document: dict[str, Any]) -> None:
        self._head(code)
        self.wfile.write(json.dumps(document).encode())

    def _head(self, code: int) -> None:
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.end_headers()


_EXTENSIONS = """
[req]
distinguished_name = name
[name]
[authority]
basicConstraints = critical, CA:true
subjectKeyIdentifier = hash
[server]
basicConstraints = CA:false
authorityKeyIdentifier = keyid
subjectAltName = IP:127.0.0.1
"""


def _certify(folder: Path, authority: Path) -> None:
    """Make an authority that does not say what its key is for, and a server's certificate by it."""
    config = folder / "openssl.cnf"
    config.write_text(_EXTENSIONS)
    make = [need.program("openssl"), "req", "-x509", "-config", str(config), "-days", "2"]
    make += ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    key = folder / "authority.pem"
    signed = ["-CA", str(authority), "-CAkey", str(key)]
    for name, out, secret, more in (
        ("authority", authority, key, []),
        ("server", folder / "cert.pem", folder / "key.pem", signed),
    ):
        command = [*make, "-extensions", name, "-subj", f"/CN={name}", *more]
        command += ["-keyout", str(secret), "-out", str(out)]
        subprocess.run(command, check=True, capture_output=True)


@contextmanager
def serving(folder: Path) -> Iterator[ApiServer]:
    """Yield a server that has the DaemonSet; ``directory`` is for its files."""
    account = folder / "account"
    account.mkdir()
    (account / "token").write_text(TOKEN)
    (account / "namespace").write_text(NAMESPACE)
    _certify(folder, account / "ca.crt")
    with ApiServer(account) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
