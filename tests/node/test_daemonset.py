"""The question whether the DaemonSet is still there, put to a server over TLS."""

import ssl
from typing import Any

import pytest

from node.apiserver import NAME, ApiServer
from shim.node.daemonset import DaemonSet


@pytest.fixture
def daemonset(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> DaemonSet:
    """Return the DaemonSet as its pod sees it."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return DaemonSet(NAME, server.account)


def test_an_authority_without_key_usage_is_taken(
    daemonset: DaemonSet, server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also by Python 3.13, whose contexts are strict: kubectl takes such a cluster's, too."""
    usual = ssl.create_default_context

    def strict(**words: Any) -> ssl.SSLContext:
        context = usual(**words)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        return context

    monkeypatch.setattr(ssl, "create_default_context", strict)
    assert daemonset.gone() is False
    server.remove(rights=False)
    assert daemonset.gone() is True


def test_the_reason_is_told(daemonset: DaemonSet, server: ApiServer) -> None:
    """Where it cannot be told whether it is there, the server's refusal or the failure is named."""
    server.refuses = True
    assert daemonset.gone() is None
    assert daemonset.doubt == "the API server answers 403 Forbidden"
    (server.account / "ca.crt").write_text("")
    assert daemonset.gone() is None
    assert "SSL" in daemonset.doubt or "certificate" in daemonset.doubt
