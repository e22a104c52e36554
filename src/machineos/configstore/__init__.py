"""The configuration of a machine: one git history, one commit per state of the whole machine."""
