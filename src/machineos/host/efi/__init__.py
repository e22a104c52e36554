"""The firmware of the machine we run on: its boot entries."""
