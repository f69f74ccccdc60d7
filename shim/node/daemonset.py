"""Whether the DaemonSet that a pod is of is still there: removal is nothing that a pod is told.

A pod's end looks the same at a roll-out, an eviction, a drain and a removal. So the API server is
asked. Who deletes all of a manifest deletes the pod's right to ask as well, and mostly before the
pod: therefore a watch is kept open, which goes on to tell.
"""

import contextlib
import http.client
import json
import os
import ssl
import threading
import time
from pathlib import Path
from typing import Any

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_WATCH_SECONDS = 300
_ANSWER_SECONDS = 10
_PAUSE_SECONDS, _REFUSED_SECONDS = 1, 30
_FAILURES = (OSError, http.client.HTTPException, ValueError, KeyError)


class DaemonSet:
    """The DaemonSet ``name`` in the namespace of the pod's service account."""

    def __init__(self, name: str, account: Path = SERVICE_ACCOUNT) -> None:
        self._name = name
        self._account = account
        self._gone: bool | None = None
        self.doubt = "the API server was not asked"

    def follow(self) -> None:
        """Keep being told of it from now on, in the background."""
        threading.Thread(target=self._follow, daemon=True).start()

    def gone(self) -> bool | None:
        """Tell whether it was removed; None: that cannot be told, and ``doubt`` says why."""
        try:
            with self._get(f"/{self._name}", _ANSWER_SECONDS) as answer:
                if answer.status == http.HTTPStatus.NOT_FOUND:
                    return True
                if answer.status == http.HTTPStatus.OK:
                    return _is_going(json.load(answer))
                self.doubt = f"the API server answers {answer.status} {answer.reason}".strip()
        except _FAILURES as error:
            self.doubt = f"{type(error).__name__}: {error}"
        # What was heard of it last is all that is known.
        return self._gone

    def _follow(self) -> None:
        while True:
            told = False
            with contextlib.suppress(*_FAILURES):
                told = self._watch()
            # A thousand pods that may not ask should not do so all the time.
            time.sleep(_PAUSE_SECONDS if told else _REFUSED_SECONDS)

    def _watch(self) -> bool:
        """Listen until the server ends it, as it does from time to time; False: it refuses."""
        words = f"?watch=true&timeoutSeconds={_WATCH_SECONDS}&fieldSelector=metadata.name%3D"
        with self._get(words + self._name, _WATCH_SECONDS + _ANSWER_SECONDS) as answer:
            if answer.status != http.HTTPStatus.OK:
                return False
            for line in answer:
                event = json.loads(line)
                if event["type"] == "DELETED":
                    self._gone = True
                elif event["type"] in ("ADDED", "MODIFIED"):
                    self._gone = _is_going(event["object"])
        return True

    def _get(self, what: str, seconds: float) -> http.client.HTTPResponse:
        """Ask the API server; the token is read anew since the kubelet renews it."""
        token = (self._account / "token").read_text()
        namespace = (self._account / "namespace").read_text()
        context = ssl.create_default_context(cafile=str(self._account / "ca.crt"))
        # Python 3.13 began to be strict: it refuses an authority whose certificate does not say
        # what its key is for, which kubectl and the kubelet take.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        server = http.client.HTTPSConnection(
            os.environ.get("KUBERNETES_SERVICE_HOST", ""),
            int(os.environ.get("KUBERNETES_SERVICE_PORT", "443")),
            timeout=seconds,
            context=context,
        )
        path = f"/apis/apps/v1/namespaces/{namespace}/daemonsets{what}"
        headers = {"Authorization": f"Bearer {token}", "Connection": "close"}
        server.request("GET", path, headers=headers)
        return server.getresponse()


def _is_going(daemonset: dict[str, Any]) -> bool:
    return "deletionTimestamp" in daemonset["metadata"]
