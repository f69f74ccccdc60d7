"""Docker's ways in: the SDK's clients, the command line and compose, container by container."""
