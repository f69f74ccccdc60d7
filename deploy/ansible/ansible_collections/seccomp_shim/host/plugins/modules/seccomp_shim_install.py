#!/usr/bin/python
"""Seccomp-shim on the host, and the engines told of it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: seccomp_shim_install
short_description: Install seccomp-shim and have engines run containers through it
description:
  - Copies the project to the host, runs its install.sh there, and does what C(seccomp-shim install)
    does for each of O(engines). No engine is ever restarted.
  - On the host, install.sh takes missing system packages from the distribution, and Python packages
    from where pip is set up to; the task's C(environment) (C(PIP_INDEX_URL), C(PIP_FIND_LINKS),
    C(https_proxy)) reaches both.
options:
  state:
    description:
      - C(present) installs, upgrades where the controller has another version, tells O(engines).
      - C(absent) tells O(engines) no more. Where none are named, all that were told are told no
        more, and seccomp-shim is removed.
    type: str
    choices: [present, absent]
    default: present
  engines:
    description:
      - Names of engines, each with the words that C(seccomp-shim install ENGINE) takes, such as
        C(docker --default).
    type: list
    elements: str
    default: []
  purge:
    description: With O(state=absent), remove the log and edited settings, too.
    type: bool
    default: false
extends_documentation_fragment:
  - seccomp_shim.host.on_host
author:
  - The seccomp-shim authors
"""

EXAMPLES = r"""
- name: Have all new containers of Docker run through seccomp-shim
  seccomp_shim.host.seccomp_shim_install:
    engines:
      - docker --default
  become: true

- name: Remove it
  seccomp_shim.host.seccomp_shim_install:
    state: absent
  become: true
"""

RETURN = r"""
version:
  description: The version that was installed.
  returned: with state present, unless in check mode
  type: str
notes:
  description: What was found and decided, a line each.
  returned: always
  type: list
  elements: str
next_steps:
  description: What is left to the admin, such as restarting an engine.
  returned: always
  type: list
  elements: str
"""

import os
import shlex

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.seccomp_shim.host.plugins.module_utils import onhost

_PREFIX = "/opt/seccomp-shim"


def main():
    """Install or remove."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "engines": {"type": "list", "elements": "str", "default": []},
            "purge": {"type": "bool", "default": False},
            **onhost.ARGUMENTS,
        },
        supports_check_mode=True,
    )
    directory = onhost.unpacked(module)
    if os.geteuid() != 0:
        module.fail_json(msg="installing takes root: add become: true")
    if not os.path.exists(os.path.join(directory, "install.sh")):
        module.fail_json(msg="the controller's seccomp-shim came without install.sh")
    present = module.params["state"] == "present"
    answer = (_present if present else _absent)(module, directory, _engines(module))
    answer.update(onhost.shown(module, answer))
    module.exit_json(**answer)


def _engines(module):
    """Return the words for each engine."""
    words = [shlex.split(each) for each in module.params["engines"]]
    if not all(words):
        module.fail_json(msg="engines: an empty name")
    return {each[0]: each[1:] for each in words}


def _present(module, directory, engines):
    before = os.path.realpath(os.path.join(_PREFIX, "current"))
    if module.check_mode:
        said = _script(module, directory, "--dry-run")
        new = "up to date" not in said
    else:
        _script(module, directory, "--no-demo")
        new = os.path.realpath(os.path.join(_PREFIX, "current")) != before
    if module.check_mode and not os.path.exists(_PREFIX + "/current"):
        # What an engine would be told names files that are not there yet.
        notes = ["%s: told once seccomp-shim is installed" % name for name in engines]
        return {"changed": True, "diff": "", "notes": notes, "next_steps": []}
    answer = _told(module, engines)
    answer["changed"] = answer["changed"] or new
    if not module.check_mode:
        answer["version"] = onhost.ask(module, {"do": "installed"})["installed"]["version"]
    return answer


def _absent(module, directory, engines):
    known = onhost.ask(module, {"do": "installed"})
    there = os.path.exists(_PREFIX + "/manifest")
    answer = _told(module, engines or {name: [] for name in known["engines"]})
    if engines or not there:
        return answer
    if not module.check_mode:
        _script(module, directory, "--uninstall", *(["--purge"] if module.params["purge"] else []))
    answer["changed"] = True
    return answer


def _told(module, engines):
    present = module.params["state"] == "present"
    question = {"engines": engines, "present": present, "check": module.check_mode}
    return onhost.ask(module, {"do": "registered", **question})


def _script(module, directory, *words):
    """Run install.sh; what it says last is what is told where it fails."""
    command = ["sh", os.path.join(directory, "install.sh"), *words]
    code, out, err = module.run_command(command, cwd="/")
    if code != 0:
        lines = (err.strip() or out.strip()).splitlines() or ["install.sh ended with %d" % code]
        module.fail_json(msg=lines[-1], said=(out + err).splitlines()[-40:])
    return out


if __name__ == "__main__":
    main()
