"""What starts containers: for now the OCI runtimes themselves."""
