"""The module of the same name, with what it needs on the host brought there."""

from __future__ import annotations

from ansible_collections.seccomp_shim.host.plugins.plugin_utils.payload import Action


class ActionModule(Action):
    """What Ansible looks for."""
