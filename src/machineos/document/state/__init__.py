"""What a machine stores about itself."""
