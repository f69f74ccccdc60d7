"""Generated from profiles/syscalls.yaml by shim/catalog/generate.py: do not edit."""

ROWS: tuple[tuple[str, dict[str, int], str, str, str, str, str], ...] = (
    ("uretprobe", {"x86_64": 335}, "kernel-injected", "6.11", "2.5.6", "", ""),
    ("uprobe", {"x86_64": 336}, "kernel-injected", "6.18", "2.6.1", "", ""),
)
