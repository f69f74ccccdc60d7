"""Many hosts: asked, planned for, changed in batches, rolled back, reported on; by Ansible."""
