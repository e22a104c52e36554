"""One small adapter per external tool: pure ``argv_*`` and ``parse_*``, and the call."""
