"""nftables, through ``nft -f -``: one transaction that replaces one table, or changes nothing."""

from __future__ import annotations

from machineos.core.run import run

_TIMEOUT = 30.0


def argv_apply(*, check_only: bool = False) -> list[str]:
    """Return the command that reads a ruleset from standard input."""
    return ["nft", *(["--check"] if check_only else []), "--file", "-"]


def replace_table(family: str, table: str, body: str) -> str:
    """Return a script that puts ``body`` in place of the table, whether it exists or not."""
    name = f"{family} {table}"
    return f"add table {name}\ndelete table {name}\ntable {name} {{\n{body}}}\n"


def apply(script: str) -> None:
    """Apply a script as one transaction. Raises: MissingToolError, ToolError (nothing changed)."""
    run(argv_apply(), input=script.encode(), timeout=_TIMEOUT)


def delete_table(family: str, table: str) -> None:
    """Remove a table; one that does not exist is no error. Raises: ToolError."""
    apply(f"add table {family} {table}\ndelete table {family} {table}\n")
