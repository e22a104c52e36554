"""The command behind ``scripts/mutants``."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mutants import equivalent, report
from mutants.choice import Chooser
from mutants.record import Cache, Records, cheap_files
from mutants.rooms import ROOMS, choose
from mutants.sample import draw, everything
from mutants.workers import Verdict, Worker, Workers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mutants.equivalent import Equivalent
    from mutants.operators import Mutant

TOP = Path(__file__).resolve().parents[2]
CACHE = ".cache/mutants/records.json"
PAGE = "docs/mutants.md"
LIST = "tests/mutants/equivalent.toml"


def main(argv: Sequence[str] | None = None) -> int:
    """Run, print, and return 0 when enough mutants were noticed."""
    options = _options(argv)
    try:
        if options.list:
            print("\n".join(one.name for one in _plan(TOP, options).sample))
            return 0
        result = _run(options)
    except ValueError as error:
        print(f"mutants: {error}", file=sys.stderr)
        return 2
    print(json.dumps(report.document(result), indent=1) if options.json else report.text(result))
    if options.write or not (options.room or options.effects or options.again):
        (TOP / PAGE).write_text(report.page(result))
    return 0 if result.good else 1


@dataclass(frozen=True)
class Plan:
    """What a run is about."""

    sample: tuple[Mutant, ...]
    universe: int
    equivalent: tuple[Equivalent, ...]
    left_out: tuple[str, ...]


def _plan(top: Path, options: argparse.Namespace) -> Plan:
    """Return what to do with the tree in ``top``. Raises: ValueError."""
    chosen = choose(top, tuple(options.room) or ROOMS, everything=options.effects)
    entries = equivalent.read((top / LIST).read_text())
    everywhere, _ = everything(top, choose(top, everything=True).modules)
    for entry in equivalent.stale(entries, everywhere):
        raise ValueError(f"in {LIST} fits no mutant, or several: {entry}")
    universe, sources = everything(top, chosen.modules)
    universe = [one for one in universe if not any(entry.fits(one) for entry in entries)]
    if options.again:
        names = report.survivors(json.loads(options.again.read_text()))
        sample = [one for one in universe if report.key(one) in names]
    else:
        sample = draw(universe, sources, seed=options.seed, count=options.count)
    return Plan(tuple(sample), len(universe), entries, chosen.left_out)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/mutants", description=main.__doc__)
    parser.add_argument("--seed", type=int, default=1, help="which sample (default 1)")
    parser.add_argument("--count", type=int, default=400, help="how many mutants (default 400)")
    parser.add_argument(
        "--room", action="append", default=[], metavar="ROOM",
        help=f"only this folder or module of the package; may be repeated ({', '.join(ROOMS)})",
    )  # fmt: skip
    parser.add_argument("--effects", action="store_true", help="modules that only act too")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="workers")
    parser.add_argument("--list", action="store_true", help="show the sample and run nothing")
    parser.add_argument(
        "--again", type=Path, metavar="FILE", help="only what survived in the JSON of a run before"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE} for a part, too")
    return parser.parse_args(argv)


def _run(options: argparse.Namespace) -> report.Result:
    verdicts: dict[Mutant, Verdict] = {}
    # A short path: sockets of tests are below it, and allow 107 bytes.
    scratch = Path(tempfile.mkdtemp(prefix="mm."))
    try:
        with Workers(TOP, scratch, options.jobs) as workers:
            plan = _plan(workers.root, options)
            records = _records(workers)
            chooser = Chooser(workers.root, records)

            def judge(worker: Worker, mutant: Mutant) -> Verdict:
                return worker.judge(mutant, chooser, records)

            def done(mutant: Mutant, verdict: Verdict) -> None:
                verdicts[mutant] = verdict
                count = f"{len(verdicts)}/{len(plan.sample)}"
                print(f"{count} {verdict.outcome}: {mutant.name}", file=sys.stderr, flush=True)

            workers.each(plan.sample, judge, done)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    found = tuple(verdicts[one] for one in plan.sample)
    return report.Result(options.seed, plan.universe, found, plan.equivalent, plan.left_out)


def _records(workers: Workers) -> Records:
    """Return what the cheap tests come by, recording what is not known or has changed."""
    cache = Cache(workers.root, TOP / CACHE)
    files = cheap_files(workers.root)

    def done(file: str, record: dict[str, Any]) -> None:
        cache.put(file, record)
        print(f"recorded {file}", file=sys.stderr, flush=True)

    try:
        missing = [file for file in files if cache.get(file) is None]
        workers.each(missing, Worker.record, done)
    finally:
        cache.save()
    records = Records()
    for file in files:
        record = cache.get(file)
        assert record is not None
        records.add(file, record)
    for name in records.left_out:
        print(f"not asked (needs root, or does not pass): {name}", file=sys.stderr)
    return records


if __name__ == "__main__":
    sys.exit(main())
