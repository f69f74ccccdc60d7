#!/usr/bin/python
"""Seccomp profiles patched, or as they were."""

from __future__ import annotations

DOCUMENTATION = r"""
module: seccomp_shim_profile
short_description: Let seccomp profiles allow what a newer kernel makes processes call
description:
  - Adds one rule to seccomp profiles that deny by default what the kernel itself makes processes
    call (uretprobe, uprobe). All else in the file stays byte for byte, owner, mode and attributes
    are kept, and what was there is kept as a backup under /var/lib/seccomp-shim.
  - Knows Docker profiles, OCI C(linux.seccomp) and C(config.json), SeccompProfile resources and
    JSON in YAML such as ConfigMaps have.
  - A profile that denies a call by name is left alone, as somebody wanted that.
options:
  state:
    description:
      - C(patched) allows the calls.
      - C(rolled_back) makes the files what they were before. A file that somebody has changed since
        is left alone, and the task fails.
    type: str
    choices: [patched, rolled_back]
    default: patched
  path:
    description:
      - Profiles, or directories of profiles, and nothing else.
      - Exactly one of O(path), O(all) and O(run) must be given.
    type: list
    elements: path
    default: []
  extra_paths:
    description:
      - With O(state=patched) and O(all), profiles and directories of profiles besides those that
        engines know of.
    type: list
    elements: path
    default: []
  all:
    description:
      - Every profile of the host that engines use or that lies where they look; with
        O(state=rolled_back), every file that was ever patched.
    type: bool
    default: false
  homes:
    description: >-
      With O(all), also the profiles in users' home directories. Each is changed with its owner's
      rights alone.
    type: bool
    default: false
  run:
    description: With O(state=rolled_back), roll back the run with this id alone.
    type: str
    default: ""
  when:
    description:
      - C(present) adds the calls that this kernel has, C(needed) only those that it lets profiles
        deny, C(always) does not look at the kernel.
    type: str
    choices: [present, needed, always]
    default: present
  override_deny:
    description: Allow also what a profile denies by name.
    type: bool
    default: false
  enosys:
    description:
      - With O(state=patched), calls that no rule of a profile names and that its default action
        refuses by EPERM are answered with ENOSYS, so that programs fall back; nothing is allowed.
      - C(newer) are those newer than all that the profile names, C(unnamed) also those since Linux
        5.1 that it passes over; or names of calls.
    type: list
    elements: str
    default: []
  expected:
    description:
      - With O(state=patched), the only files that may be changed, each with the checksums C(before)
        and C(after) that a run in check mode has told. Any other change is not made and listed as
        skipped; what keeps one of these files from its new content is a failure.
      - With O(state=rolled_back), the files that become again what they were, C(before), where they
        are now what they were to become, C(after), whatever run has changed them.
    type: dict
  force:
    description:
      - With O(state=rolled_back), overwrite what somebody has changed since.
      - With O(state=patched), change also files that belong to a package of the distribution, which
        are left alone otherwise, since the package's next version overwrites them.
    type: bool
    default: false
  verify:
    description:
      - Look at the host before the change and after it. Engines are asked whether they answer, and
        containers are started and thrown away, through Docker and Podman as they make them by
        default, through runc and crun under each of up to four profiles that change; what the
        filter of their process says to the calls is told.
      - What is worse after is a failure. The files stay changed.
      - In check mode there is the look before only.
    type: bool
    default: false
extends_documentation_fragment:
  - seccomp_shim.host.on_host
author:
  - The seccomp-shim authors
"""

EXAMPLES = r"""
- name: Patch every profile of the host
  seccomp_shim.host.seccomp_shim_profile:
    all: true
  become: true

- name: Patch one profile
  seccomp_shim.host.seccomp_shim_profile:
    path: /etc/docker/seccomp.json
  become: true

- name: Patch one profile if it is still what it was when the change was planned
  seccomp_shim.host.seccomp_shim_profile:
    path: /etc/docker/seccomp.json
    expected:
      /etc/docker/seccomp.json: ["{{ planned.files[0].before }}", "{{ planned.files[0].after }}"]
  become: true

- name: Patch every profile, and see that containers start as before
  seccomp_shim.host.seccomp_shim_profile:
    all: true
    verify: true
  become: true

- name: Take all of it back
  seccomp_shim.host.seccomp_shim_profile:
    state: rolled_back
    all: true
  become: true
"""

RETURN = r"""
run:
  description: The id of the run, for C(run) and for C(seccomp-shim rollback) on the host.
  returned: when files were changed
  type: str
files:
  description: >-
    Each file that was changed or not, as C(file), C(result) (patched, rolled back, left alone,
    skipped, failed), C(reason), and the SHA-256 of its content C(before) and C(after), empty where
    it is not known. C(effect) of a patched file tells under which of the host's runtimes the names
    that were added have an effect (all, some, none, unknown); their libseccomp may drop them. Files
    with nothing to do are not listed.
  returned: always
  type: list
  elements: dict
problems:
  description: What kept the state from being reached, a line each.
  returned: always
  type: list
  elements: str
notes:
  description: What could not be looked at, and earlier runs that were killed.
  returned: always
  type: list
  elements: str
no_effect:
  description: >-
    A line for each patched file whose new names the libseccomp of a runtime here drops, and what
    helps there. Each is a warning, too; the file is patched all the same.
  returned: always
  type: list
  elements: str
health:
  description: >-
    C(before) and C(after) (empty where nothing was changed) with C(engines) (C(engine), C(answers),
    C(said)), C(containers) (C(how), C(profile), C(started), C(reason), C(calls) with C(verdict) and
    C(expected) of each) and C(not_tried); C(regressions), a line each.
  returned: with verify
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.seccomp_shim.host.plugins.module_utils import onhost


def main():
    """Ask and answer."""
    module = AnsibleModule(
        argument_spec={
            "state": {
                "type": "str",
                "choices": ["patched", "rolled_back"],
                "default": "patched",
            },
            "path": {"type": "list", "elements": "path", "default": []},
            "extra_paths": {"type": "list", "elements": "path", "default": []},
            "all": {"type": "bool", "default": False},
            "run": {"type": "str", "default": ""},
            "when": {
                "type": "str",
                "choices": ["present", "needed", "always"],
                "default": "present",
            },
            "homes": {"type": "bool", "default": False},
            "override_deny": {"type": "bool", "default": False},
            "enosys": {"type": "list", "elements": "str", "default": []},
            "expected": {"type": "dict"},
            "force": {"type": "bool", "default": False},
            "verify": {"type": "bool", "default": False},
            **onhost.ARGUMENTS,
        },
        supports_check_mode=True,
    )
    answer = onhost.ask(module, _question(module, module.params))
    answer.update(onhost.shown(module, answer))
    for line in answer["no_effect"]:
        module.warn(line)
    if answer["problems"]:
        module.fail_json(msg=onhost.summary(answer["problems"]), **answer)
    module.exit_json(**answer)


def _question(module, given):
    """Put what was asked for in words."""
    if sum(bool(given[key]) for key in ("path", "all", "run")) != 1:
        module.fail_json(msg="exactly one of path, all and run must be given")
    if given["extra_paths"] and not (given["state"] == "patched" and given["all"]):
        module.fail_json(msg="extra_paths goes with state: patched and all: true")
    common = {"paths": given["path"], "check": module.check_mode, "diff": module._diff}
    common["verify"] = given["verify"]
    expected = given["expected"]
    for file, checksums in (expected or {}).items():
        if not isinstance(checksums, list) or len(checksums) != 2:
            module.fail_json(msg="expected: %s needs two checksums: [before, after]" % file)
    if given["state"] == "rolled_back":
        if expected is not None and given["run"]:
            module.fail_json(msg="expected does not go with run")
        back = {"run_id": given["run"], "force": given["force"], "expected": expected}
        return {"do": "rolled_back", **back, **common}
    if given["run"]:
        module.fail_json(msg="run goes with state: rolled_back")
    return {
        "do": "patched",
        "everything": given["all"],
        "extra_paths": given["extra_paths"],
        "when": given["when"],
        "override_deny": given["override_deny"],
        "enosys": given["enosys"],
        "force": given["force"],
        "homes": given["homes"],
        "expected": expected,
        **common,
    }


if __name__ == "__main__":
    main()
