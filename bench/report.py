"""What was measured, as Markdown for people and JSON for machines.

Invariant: a figure that misses its limit is named in the first lines and in its row; there is no
way to leave it out. A row that was not measured in this run is said to be missing.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from bench.measure import Pair, Spread

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Check:
    """One figure against its limit; it holds when it is at most the limit."""

    name: str
    value: float
    limit: float
    unit: str = ""
    shown: str = ""

    @property
    def holds(self) -> bool:
        """Whether the limit is kept."""
        return self.value <= self.limit

    @property
    def text(self) -> str:
        """The figure for people."""
        return f"{self.shown or f'{self.value:.2f}'}{self.unit}"

    @property
    def verdict(self) -> str:
        """Whether it is met, in words."""
        limit = f"{self.limit:g}{self.unit}"
        return f"at most {limit}: met" if self.holds else f"**falls short of {limit}**"


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that was measured. ``pairs`` is empty for what has only a limit."""

    key: str
    what: str
    against: str
    checks: tuple[Check, ...]
    pairs: tuple[Pair, ...] = ()
    notes: tuple[str, ...] = ()
    raw: dict[str, Any] = field(default_factory=dict)


def ratio_check(pairs: Sequence[Pair], limit: float) -> Check:
    """Return the check of the median ratio of the pairs."""
    spread = Spread.of([pair.ratio for pair in pairs])
    return Check("time", spread.median, limit, "x", spread.show())


@dataclass(frozen=True, slots=True)
class Facts:
    """Where and when: name to value, in order."""

    values: dict[str, str]


def markdown(rows: Sequence[Row], missing: Mapping[str, str], facts: Facts, *, quick: bool) -> str:
    """Return the document."""
    lines = ["# Benchmarks", ""]
    if quick:
        lines += ["**A smoke test with small sizes and one pair each: not a measurement.**", ""]
    lines += [
        "Written by `make bench`; do not edit. Ours and the other tool run in turn (A B A B) in "
        "one run, a ratio is the median of the ratios of the "
        "pairs with the least and the greatest in brackets. Times are of whole processes, "
        "processor time is user and system, memory is the largest resident process.",
        "",
    ]
    short = [f"{row.what} ({check.name} {check.text}, {check.verdict})"
             for row in rows for check in row.checks if not check.holds]  # fmt: skip
    if short:
        lines += ["Falling short:", "", *(f"- {text}" for text in short), ""]
    else:
        lines += ["Nothing that was measured falls short.", ""]
    if missing:
        lines += ["Not measured in this run:", ""]
        lines += [*(f"- {name}: {why}" for name, why in missing.items()), ""]
    lines += ["| what | against | figure | verdict |", "|---|---|---|---|"]
    for row in rows:
        figures = "<br>".join(f"{check.name} {check.text}" for check in row.checks)
        verdicts = "<br>".join(check.verdict for check in row.checks)
        lines.append(f"| {row.what} | {row.against} | {figures} | {verdicts} |")
    for row in rows:
        lines += ["", f"## {row.key}", "", f"{row.what}, against {row.against}.", ""]
        lines += _samples(row)
        lines += [f"- {note}" for note in row.notes]
    lines += ["", "## Where", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in facts.values.items()]
    return "\n".join(lines) + "\n"


def raw(rows: Sequence[Row], facts: Facts) -> dict[str, Any]:
    """Return everything as plain values."""
    return {"facts": facts.values, "rows": [asdict(row) for row in rows]}


def _samples(row: Row) -> list[str]:
    if not row.pairs:
        return []
    lines = ["| side | seconds | processor seconds | MiB |", "|---|---|---|---|"]
    for side in ("ours", "peer"):
        samples = [getattr(pair, side) for pair in row.pairs]
        cells = [Spread.of([sample.wall for sample in samples]).show()]
        if any(sample.cpu for sample in samples):
            cells.append(Spread.of([sample.cpu for sample in samples]).show())
            cells.append(Spread.of([sample.memory for sample in samples]).show(0))
        else:
            cells += ["not measured", "not measured"]
        name = "ours" if side == "ours" else "theirs"
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines.append("")
    if all(pair.ours.cpu and pair.peer.cpu for pair in row.pairs):
        spread = Spread.of([pair.ours.cpu / pair.peer.cpu for pair in row.pairs])
        lines += [
            f"- the ratio of processor seconds, which other work bears on less: {spread.show()}"
        ]
    return lines
