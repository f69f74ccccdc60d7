"""Generated from profiles/syscalls.yaml by shim/catalog/generate.py: do not edit.

The calls that a kernel makes a process issue without the program's doing, by name, and their
numbers on x86-64: all of the catalogue that a container start reads.
"""

X86_64 = {
    "uretprobe": 335,
    "uprobe": 336,
}
