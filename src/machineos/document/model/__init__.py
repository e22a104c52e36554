"""The values that documents are made of: names, targets, what an image says of itself; bounds."""
