"""What the proofs came to, as a page: what each shows, how often it booted, how it ended.

Reads the report that pytest wrote (JUnit XML) and the tests' own sentences.
"""

from __future__ import annotations

import ast
import sys
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Proof:
    """One test: its name, what it shows, how often it booted, seconds, how it ended."""

    name: str
    shows: str
    boots: str
    seconds: float
    ended: str


def sentence(module: str, function: str) -> str:
    """Return the first sentences of a test's docstring, on one line."""
    path = TOP.joinpath(*module.split(".")).with_suffix(".py")
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef) and node.name == function:
            return " ".join((ast.get_docstring(node) or "").split())
    return ""


def read(report: Path) -> list[Proof]:
    """Return the proofs of a report. Raises: ET.ParseError."""
    found = []
    for case in ET.parse(report).getroot().iter("testcase"):
        name = case.get("name", "")
        properties = {one.get("name"): one.get("value", "") for one in case.iter("property")}
        bad = any(case.find(tag) is not None for tag in ("failure", "error"))
        ended = "FAILED" if bad else "not run" if case.find("skipped") is not None else "holds"
        module = case.get("classname", "")
        shows = sentence(module, name.partition("[")[0])
        seconds = float(case.get("time", "0"))
        found.append(Proof(name, shows, properties.get("boots", "?"), seconds, ended))
    return found


def page(proofs: list[Proof], day: str) -> str:
    """Return the page."""
    rows = [
        f"| `{one.name}` | {one.shows} | {one.boots} | {one.seconds:.0f} | {one.ended} |"
        for one in proofs
    ]
    text = f"""# Proofs

Written by `make proofs`: the tests that boot a guest more than twice, so they are not part of
`make test`. Last run on {day}; seconds are those of that machine, the first one's with the building
of the appliance.

| test | what it shows | boots | seconds | ended |
|---|---|---|---|---|
"""
    return text + "\n".join(rows) + "\n"


def main() -> None:
    report, target = Path(sys.argv[1]), Path(sys.argv[2])
    proofs = read(report)
    if not proofs:
        sys.exit("scripts/proofs: no proof was run")
    target.write_text(page(proofs, datetime.now(UTC).date().isoformat()))


if __name__ == "__main__":
    main()
