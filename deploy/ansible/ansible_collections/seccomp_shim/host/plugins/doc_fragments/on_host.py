"""What the documentation of all modules has in common."""

from __future__ import annotations


class ModuleDocFragment:
    """Options that the action plugins set, and what a host needs."""

    DOCUMENTATION = r"""
options:
  payload:
    description: Set by the action plugin.
    type: str
  payload_file:
    description: Set by the action plugin.
    type: path
requirements:
  - Python 3.11 or newer on the host (another one than Ansible's own is looked for in /usr/bin)
"""
