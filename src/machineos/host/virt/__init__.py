"""What virtual machines run on: QEMU and its images, QMP, swtpm, variable stores."""
