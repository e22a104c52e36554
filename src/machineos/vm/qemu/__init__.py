"""Machines of type kvm: QEMU and swtpm, as processes without a daemon."""
