"""Generated from profiles/syscalls.yaml by shim/catalog/generate.py: do not edit."""

# The calls that kernels make processes issue.
ROWS: tuple[tuple[str, dict[str, int], str, str], ...] = (
    ("uretprobe", {"x86_64": 335, "x32": 335}, "kernel-injected", "2.5.6"),
    ("uprobe", {"x86_64": 336, "x32": 336}, "kernel-injected", "2.6.1"),
)

# From this number on all architectures share them.
FIRST = 424
# The calls since then that every libseccomp knows which knows one of those above.
LATER = (
    "pidfd_send_signal", "io_uring_setup", "io_uring_enter", "io_uring_register", "open_tree",
    "move_mount", "fsopen", "fsconfig", "fsmount", "fspick", "pidfd_open", "clone3", "openat2",
    "pidfd_getfd", "faccessat2", "close_range", "process_madvise", "epoll_pwait2",
    "mount_setattr", "landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self",
    "quotactl_fd", "memfd_secret", "process_mrelease", "futex_waitv", "set_mempolicy_home_node",
    "cachestat", "fchmodat2", "map_shadow_stack", "futex_wake", "futex_wait", "futex_requeue",
)  # fmt: skip
