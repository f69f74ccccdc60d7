"""The laboratory: real kernels under QEMU, real runtimes, real uretprobes."""
