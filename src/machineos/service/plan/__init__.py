"""What a service is to be: image, network, LXC, unit. Pure."""
