"""Every profile of a host: where it is, who uses it, what it says."""
