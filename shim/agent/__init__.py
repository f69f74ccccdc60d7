"""What runs on a managed host, for those who manage many: facts, ensure, register."""
