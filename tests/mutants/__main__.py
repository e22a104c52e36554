"""The command behind ``scripts/mutants``."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mutants import equivalent, report
from mutants.choice import Chooser
from mutants.record import Cache, Records, test_files
from mutants.rooms import ROOMS, choose
from mutants.sample import draw, everything
from mutants.workers import Verdict, Worker, Workers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mutants.operators import Mutant

TOP = Path(__file__).resolve().parents[2]
CACHE = ".cache/mutants/records.json"
PAGE = "docs/mutants.md"


def main(argv: Sequence[str] | None = None) -> int:
    """Run, print, and return 0 when enough mutants were noticed."""
    options = _options(argv)
    rooms = tuple(options.room) or ROOMS
    try:
        chosen = choose(TOP, rooms, everything=options.effects)
        entries = equivalent.read(equivalent.LIST.read_text())
        everywhere = everything(TOP, choose(TOP, everything=True).modules)[0]
    except ValueError as error:
        print(f"mutants: {error}", file=sys.stderr)
        return 2
    for entry in equivalent.stale(entries, everywhere):
        print(f"mutants: fits no mutant, or several: {entry}", file=sys.stderr)
        return 2
    universe, sources = everything(TOP, chosen.modules)
    universe = [one for one in universe if not any(entry.fits(one) for entry in entries)]
    sample = draw(universe, sources, seed=options.seed, count=options.count)
    if options.list:
        print("\n".join(one.name for one in sample))
        return 0
    verdicts = _run(sample, options.jobs)
    result = report.Result(options.seed, len(universe), verdicts, entries, chosen.left_out)
    print(json.dumps(report.document(result), indent=1) if options.json else report.text(result))
    if options.write or not (options.room or options.effects):
        (TOP / PAGE).write_text(report.page(result))
    return 0 if result.good else 1


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
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE} for a part, too")
    return parser.parse_args(argv)


def _run(sample: list[Mutant], jobs: int) -> tuple[Verdict, ...]:
    verdicts: dict[str, Verdict] = {}
    # A short path: sockets of tests are below it, and allow 107 bytes.
    scratch = Path(tempfile.mkdtemp(prefix="mm."))
    try:
        with Workers(TOP, scratch, jobs) as workers:
            records = _records(workers)
            chooser = Chooser(TOP, records)

            def judge(worker: Worker, mutant: Mutant) -> Verdict:
                return worker.judge(mutant, chooser, records)

            def done(mutant: Mutant, verdict: Verdict) -> None:
                verdicts[mutant.name] = verdict
                count = f"{len(verdicts)}/{len(sample)}"
                print(f"{count} {verdict.outcome}: {mutant.name}", file=sys.stderr, flush=True)

            workers.each(sample, judge, done)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return tuple(verdicts[one.name] for one in sample)


def _records(workers: Workers) -> Records:
    cache = Cache(TOP, TOP / CACHE)
    files = test_files(TOP)
    missing = [file for file in files if cache.get(file) is None]

    def done(file: str, record: dict[str, Any]) -> None:
        cache.put(file, record)
        print(f"recorded {file}", file=sys.stderr, flush=True)

    try:
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
