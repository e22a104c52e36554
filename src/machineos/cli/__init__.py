"""The commands: arguments in, text or JSON out. No decisions are made here."""
