"""How long the commands take that people and scripts call again and again, warm."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.copies import NAME, large_manifest, small_layout
from bench.measure import Spread, timed
from bench.report import Check, Row
from bench.workspace import PROJECT

if TYPE_CHECKING:
    from bench.measure import Sample
    from bench.workspace import Bench

_VERIFY_LIMIT, _HELP_LIMIT = 0.35, 0.15
_RUNS = 20


def cli(bench: Bench) -> Row:
    """Measure ``mosb manifest verify`` and ``mosctl --help``."""
    bench.keys()
    repo = bench.fresh("answers")
    manifest = large_manifest(bench, small_layout(bench))
    bench.command(
        "mosb", "manifest", "publish", "--skip-boot", "--project", PROJECT,
        "--repo", f"oci:{repo}", "--name", NAME, manifest,
    )  # fmt: skip
    verify = bench.ours(
        "mosb", "manifest", "verify", "--project", PROJECT, "--repo", f"oci:{repo}",
        "--name", NAME,
    )  # fmt: skip
    runs = 5 if bench.quick else _RUNS
    # In turn, and with an empty interpreter beside them, which is the floor for both.
    samples: dict[str, list[Sample]] = {"verify": [], "help": [], "python": []}
    commands = {
        "verify": verify,
        "help": bench.ours("mosctl", "--help"),
        "python": bench.ours("python", "-c", ""),
    }
    for _ in range(runs + 1):
        for name, argv in commands.items():
            samples[name].append(timed(argv, log=bench.log, env=bench.env, settle=False))
    spreads = {
        name: Spread.of([sample.wall for sample in found[1:]]) for name, found in samples.items()
    }
    bench.fresh("answers")
    for name, spread in spreads.items():
        bench.say(f"  {name}: {spread.show(3)} s")
    checks = [
        Check(what, spreads[name].median, limit, " s", spreads[name].show(3))
        for name, what, limit in (
            ("verify", "mosb manifest verify", _VERIFY_LIMIT),
            ("help", "mosctl --help", _HELP_LIMIT),
        )
    ]
    return Row(
        "cli",
        "`mosb manifest verify` and `mosctl --help`, warm",
        "a limit",
        tuple(checks),
        notes=(
            f"{runs} runs in turn; the empty Python interpreter took {spreads['python'].show(3)} s",
            "processor seconds, median: "
            + ", ".join(
                f"{name} {Spread.of([s.cpu for s in found[1:]]).median:.3f}"
                for name, found in samples.items()
            ),
        ),
        raw={name: [sample.wall for sample in found] for name, found in samples.items()},
    )
