"""The image store of the machine: what comes in is whole, what is there is looked at."""
