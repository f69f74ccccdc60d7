"""Many hosts: asked, planned for, changed in batches, taken back, reported on; by Ansible."""
