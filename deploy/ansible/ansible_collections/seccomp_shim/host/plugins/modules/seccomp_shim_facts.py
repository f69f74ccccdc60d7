#!/usr/bin/python
"""Facts about a host's kernel, engines and profiles."""

from __future__ import annotations

DOCUMENTATION = r"""
module: seccomp_shim_facts
short_description: Find out what a host does with system calls that seccomp profiles do not know
description:
  - Asks the host's kernel, by trying it out, what a seccomp filter does to the calls that the
    kernel itself makes processes issue (uretprobe, uprobe), and looks at runtimes, engines and
    profiles.
  - Changes nothing but a cache under /run on the host.
options:
  profiles:
    description: Whether to look for profiles, which reads many files.
    type: bool
    default: true
  extra_paths:
    description: Files and directories to look into besides those that engines know of.
    type: list
    elements: path
    default: []
  homes:
    description: Whether to look into the home directories of users, too.
    type: bool
    default: false
  fresh:
    description: Whether to ask the kernel again, whatever was found earlier in this boot.
    type: bool
    default: false
extends_documentation_fragment:
  - seccomp_shim.host.on_host
author:
  - The seccomp-shim authors
"""

EXAMPLES = r"""
- name: Find out about the hosts
  seccomp_shim.host.seccomp_shim_facts:
  become: true

- name: Name those whose containers can be killed
  ansible.builtin.debug:
    msg: "{{ inventory_hostname }}"
  when: ansible_facts.seccomp_shim.syscalls.uretprobe.state == 'filtered'
"""

RETURN = r"""
ansible_facts:
  description: >-
    C(seccomp_shim) with C(kernel), C(syscalls) (name to C(state): absent, filtered, exempt or
    unknown), C(runtimes), C(engines), C(installed), C(profiles), C(notes).
  returned: success
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.seccomp_shim.host.plugins.module_utils import onhost


def main():
    """Ask and answer."""
    module = AnsibleModule(
        argument_spec={
            "profiles": {"type": "bool", "default": True},
            "extra_paths": {"type": "list", "elements": "path", "default": []},
            "homes": {"type": "bool", "default": False},
            "fresh": {"type": "bool", "default": False},
            **onhost.ARGUMENTS,
        },
        supports_check_mode=True,
    )
    question = {key: module.params[key] for key in ("profiles", "extra_paths", "homes", "fresh")}
    answer = onhost.ask(module, {"do": "facts", **question})
    module.exit_json(changed=False, ansible_facts={"seccomp_shim": answer})


if __name__ == "__main__":
    main()
