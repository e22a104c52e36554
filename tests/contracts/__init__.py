"""What a fake and the real thing have in common, as functions that need neither pytest nor a host
with anything special: they run on a fake, on this machine, and in a guest."""
