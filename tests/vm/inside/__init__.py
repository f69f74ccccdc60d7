"""What runs in the guest: with the system's own python3, standard library only."""
