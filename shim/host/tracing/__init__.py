"""What the kernel tells root of all threads of this machine, without touching one of them."""
