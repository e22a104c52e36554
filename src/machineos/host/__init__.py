"""One room per kind of thing outside of Python; in each, one small adapter per tool or interface:
pure ``argv_*`` and ``parse_*``, and the call."""
