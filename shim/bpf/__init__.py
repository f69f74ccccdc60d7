"""What the kernel does with a filter program: decode, check, emulate, compare. Pure."""
