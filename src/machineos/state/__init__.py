"""What a machine keeps: configuration, images, boot slots, volumes."""
