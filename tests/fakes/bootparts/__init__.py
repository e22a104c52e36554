"""The parts of the machine in ``fakes.boot``: files and mounts, disks, TPM, kernel."""
