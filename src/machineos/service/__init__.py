"""Services: from a verified image to a running container, and what is known about it."""
