"""What this machine is: kernel probe, runtimes and their libseccomp, live processes."""
