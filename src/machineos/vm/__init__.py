"""Virtual machines: machine.yaml, QEMU and swtpm without a daemon."""
