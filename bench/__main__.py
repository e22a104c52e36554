"""``make bench``: measure what is asked for and write ``docs/benchmarks.md``."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import TYPE_CHECKING

from bench import answers, boot, conversion, copies, demo, foreign, recipes
from bench.report import Row, markdown, raw
from bench.workspace import TOP, Bench, facts, load
from machineos.core.clock import SystemClock
from machineos.core.files import locked, write_atomic
from machineos.errors import MachineOSError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_SINGLE: dict[str, Callable[[Bench], Row]] = {
    "publish": copies.publish,
    "pull": copies.pull,
    "push": foreign.push,
    "again": foreign.again,
    "convert": conversion.convert,
    "origins": foreign.origin,
    "user": recipes.user,
    "cli": answers.cli,
    "demo": demo.demo,
}
NAMES = (
    "publish",
    "pull",
    "push",
    "again",
    "convert",
    "origins",
    "user",
    *boot.ROWS,
    "cli",
    "demo",
)
_LONG = ("demo",)


def measure(bench: Bench, wanted: Sequence[str]) -> tuple[list[Row], dict[str, str]]:
    """Return the rows that are wanted, in the order of the document, and what failed and why: an
    hour of measurements is not thrown away for one that failed."""
    found: dict[str, Row] = {}
    failed: dict[str, str] = {}
    for name in wanted:
        if name in found or name in failed:
            continue
        bench.say(f"{name}:")
        group = [one for one in wanted if one in boot.ROWS] if name in boot.ROWS else [name]
        try:
            rows = boot.boots(bench, group) if name in boot.ROWS else [_SINGLE[name](bench)]
        except MachineOSError as error:
            bench.say(f"  failed: {error.message}")
            failed |= dict.fromkeys(group, " ".join(error.message.split())[:300])
        else:
            found |= {row.key: row for row in rows}
    return [found[name] for name in NAMES if name in found], failed


def main(arguments: Sequence[str]) -> None:
    """Parse, measure, write."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--quick", action="store_true", help="small sizes, for a smoke test")
    parser.add_argument("--pairs", type=int, default=3, help="how many pairs (default: 3)")
    parser.add_argument("--no-warm-up", action="store_true", help="keep the first pair, too")
    options = parser.parse_args(arguments)
    if unknown := set(options.names) - set(NAMES):
        parser.error(f"no such row: {', '.join(sorted(unknown))}")
    if options.pairs < 1:
        parser.error("--pairs is at least 1")
    wanted = options.names or [name for name in NAMES if name not in _LONG]
    bench = Bench(
        folder=TOP / ".cache" / "bench",
        quick=options.quick,
        pairs=1 if options.quick else options.pairs,
        warm=not (options.quick or options.no_warm_up),
        say=lambda line: print(line, flush=True),
    )
    bench.prepare()
    with locked(bench.folder / "lock", what="the folder of the measurements"):
        before = load()
        rows, failed = measure(bench, wanted)
    found = facts(before, load(), bench)
    measured = {row.key for row in rows}
    missing = {name: failed.get(name, "not asked for") for name in NAMES if name not in measured}
    text = markdown(rows, missing, found, quick=options.quick)
    results = TOP / "bench/results"
    results.mkdir(exist_ok=True)
    stamp = SystemClock().now().strftime("%Y%m%d-%H%M%S")
    write_atomic(results / f"{stamp}.json", json.dumps(raw(rows, found), indent=1).encode())
    if options.quick:
        print(text)
    else:
        write_atomic(TOP / "docs/benchmarks.md", text.encode())
        print(f"\n{text}\nwritten: docs/benchmarks.md, bench/results/{stamp}.json")
    if failed:
        sys.exit(f"bench: failed: {', '.join(failed)}")


if __name__ == "__main__":
    if os.geteuid() != 0:
        sys.exit("bench: images are built and unpacked, which needs root")
    try:
        main(sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit("bench: interrupted")
    except MachineOSError as error:
        sys.exit(f"bench: {error.message}" + (f"\nbench: {error.hint}" if error.hint else ""))
