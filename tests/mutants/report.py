"""What a run says: a table by room, the survivors by name, the same as JSON and as a page."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mutants.rooms import room_of
from mutants.workers import KILLED, LATE, SURVIVED, UNSEEN, Verdict

if TYPE_CHECKING:
    from mutants.equivalent import Equivalent
    from mutants.operators import Mutant

GOAL = 0.95


@dataclass(frozen=True)
class Result:
    """All verdicts of a run, without the mutants that are called equivalent."""

    seed: int
    universe: int
    verdicts: tuple[Verdict, ...]
    equivalent: tuple[Equivalent, ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def survivors(self) -> tuple[Verdict, ...]:
        """What nobody noticed."""
        return tuple(one for one in self.verdicts if not one.dead)

    @property
    def share(self) -> float:
        """How much of the sample was noticed, from 0 to 1."""
        return 1 - len(self.survivors) / len(self.verdicts) if self.verdicts else 1.0

    @property
    def good(self) -> bool:
        """Whether that is enough."""
        return self.share >= GOAL


def table(result: Result, *, by: str) -> list[tuple[str, int, int, int, int]]:
    """Return rows (name, mutants, killed, killed by time, survived) by room or by operator."""
    counts: dict[str, Counter[str]] = {}
    for one in result.verdicts:
        key = room_of(one.mutant.path) if by == "room" else one.mutant.operator
        counts.setdefault(key, Counter())[one.outcome] += 1
    return [
        (key, found.total(), found[KILLED], found[LATE], found[SURVIVED] + found[UNSEEN])
        for key, found in sorted(counts.items())
    ]


def text(result: Result) -> str:
    """Return what a terminal shows."""
    lines = [f"{'':20} mutants  killed  by time  survived"]
    for by in ("room", "operator"):
        lines += [f"{n:20} {a:7} {k:7} {t:8} {s:9}" for n, a, k, t, s in table(result, by=by)]
        lines.append("")
    lines += [_survivor(one) for one in result.survivors]
    lines.append(_verdict(result))
    return "\n".join(lines)


def document(result: Result) -> dict[str, object]:
    """Return the same for ``--json``."""
    return {
        "seed": result.seed,
        "universe": result.universe,
        "mutants": len(result.verdicts),
        "share": round(result.share, 4),
        "good": result.good,
        "rooms": [_row(row) for row in table(result, by="room")],
        "operators": [_row(row) for row in table(result, by="operator")],
        "equivalent": len(result.equivalent),
        "verdicts": [
            {
                "path": one.mutant.path,
                "line": one.mutant.line,
                "function": one.mutant.function,
                "operator": one.mutant.operator,
                "before": one.mutant.before,
                "after": one.mutant.after,
                "outcome": one.outcome,
                "by": one.by,
            }
            for one in result.verdicts
        ],
    }


def key(mutant: Mutant) -> tuple[str, ...]:
    """Return what names a mutant while lines move."""
    return mutant.path, mutant.function, mutant.operator, mutant.before, mutant.after


def survivors(document: dict[str, Any]) -> set[tuple[str, ...]]:
    """Return the keys of what survived in the JSON of a run."""
    fields = ("path", "function", "operator", "before", "after")
    return {
        tuple(one[field] for field in fields)
        for one in document["verdicts"]
        if one["outcome"] in {SURVIVED, UNSEEN}
    }


def page(result: Result) -> str:
    """Return docs/mutants.md: numbers and names, no date and no machine."""
    parts = [_HEAD.format(verdict=_verdict(result), seed=result.seed, universe=result.universe)]
    for by in ("room", "operator"):
        rows = [f"| {' | '.join(map(str, row))} |" for row in table(result, by=by)]
        head = f"| {by} | mutants | killed | killed by time | survived |\n|---|---|---|---|---|"
        parts.append("\n".join([head, *rows]))
    parts.append("## Survivors")
    names = [f"- `{_code(one.mutant.name)}`{_why(one)}" for one in result.survivors]
    parts.append("\n".join(names) or "None in this sample.")
    parts.append("## Called equivalent")
    listed = [
        f"- `{_code(f'{one.path}: {one.operator}: {one.before}  ->  {one.after}')}`: {one.reason}"
        for one in result.equivalent
    ]
    parts.append("\n".join(listed) or "None.")
    parts.append("## Left to the guests")
    parts.append(_LEFT_OUT)
    parts.append("\n".join(f"- `{name}`" for name in result.left_out) or "None.")
    return "\n\n".join(parts) + "\n"


def _row(row: tuple[str, int, int, int, int]) -> dict[str, object]:
    return dict(zip(("name", "mutants", "killed", "late", "survived"), row, strict=True))


def _survivor(one: Verdict) -> str:
    return f"survived: {one.mutant.name}{_why(one)}"


def _why(one: Verdict) -> str:
    return " (no cheap test comes by)" if one.outcome == UNSEEN else ""


def _code(words: str) -> str:
    return words.replace("`", "'")


def _verdict(result: Result) -> str:
    late = sum(one.outcome == LATE for one in result.verdicts)
    killed = len(result.verdicts) - len(result.survivors)
    words = f"{killed} of {len(result.verdicts)} mutants were noticed ({result.share:.1%})"
    return f"{words}, {late} of them only because they hung; {GOAL:.0%} are needed"


_HEAD = """# Mutants

Written by `make mutants`. It puts small faults, one at a time, into the code that decides (about
trust, a boot, an image, a service) and runs the cheap tests that come by the changed line: those
that need neither root nor a guest. A fault that no test notices is a survivor.

The sample is drawn from a seed (`scripts/mutants --seed N`), the six kinds taking turns. Left alone
are annotations, docstrings, decorators, what is for types only, the words of errors and logs, and
options of classes and of `zip` that check the programmer. A mutant that hangs counts as noticed,
and is counted apart.

{verdict}. Seed {seed}, from {universe} possible mutants."""

_LEFT_OUT = """Of `boot`, `install` and `state` only modules without effects are changed. These act,
and what they do is proved where it can be done:"""
