"""What one process leaves for another: builder, initrd, installer, mosd, mosctl."""
