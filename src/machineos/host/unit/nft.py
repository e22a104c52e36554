"""nftables: one transaction that replaces one table, or changes nothing. Pure."""

from __future__ import annotations

from machineos.core.command import Command

_TIMEOUT = 30.0


def apply(script: str) -> Command:
    """Return the call that carries out a script, all of it or nothing."""
    return Command(("nft", "--file", "-"), _TIMEOUT, input=script.encode())


def replace_table(family: str, table: str, body: str) -> str:
    """Return a script that puts ``body`` in place of the table, whether it exists or not."""
    name = f"{family} {table}"
    return f"add table {name}\ndelete table {name}\ntable {name} {{\n{body}}}\n"
