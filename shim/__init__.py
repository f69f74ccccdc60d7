"""Keeps containers alive when the kernel learns a call their seccomp profile has never heard of."""

__version__ = "0.1.0"
