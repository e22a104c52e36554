"""Every rule that refuses what somebody wants a machine to run, once, for all who refuse."""
