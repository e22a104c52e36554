"""Virtual machines: machine.yaml, and what runs them, behind one interface."""
