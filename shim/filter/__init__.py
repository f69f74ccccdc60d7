"""What the kernel will do: encode, decode, emulate, prefix, prove; compile through libseccomp."""
