"""The written side: links lead somewhere, commands and exit codes are the real ones."""

from __future__ import annotations

import importlib
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec
import pytest

from machineos import errors
from machineos.build.publish import lock
from machineos.build.recipe import inputs
from machineos.document.between import bootsettings, handover, status
from machineos.document.state import leases

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.*)$", re.MULTILINE)
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
TEST = re.compile(r"\b(tests/[\w/]+\.py)(?:::(\w+))?")
INTERRUPTED = 130


def section(page: str, title: str) -> str:
    _, found, rest = page.partition(f"\n## {title}\n")
    assert found, f"there is no section {title}"
    return rest.partition("\n## ")[0]


def first_cells(text: str) -> list[str]:
    """Return the first cell of each row of the tables in ``text``, headers left out."""
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    return [row.split("|")[1].strip() for row in rows][1:]


def anchors(page: Path) -> set[str]:
    titles = HEADING.findall(FENCE.sub("", page.read_text()))
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def scripts() -> dict[str, str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found: dict[str, str] = project["scripts"]
    return found


def commands(root: click.Command, path: str) -> Iterator[tuple[str, str]]:
    """Yield every command that ``--help`` shows, as (words, summary)."""
    if isinstance(root, click.Group):
        for name in sorted(root.commands):
            if not root.commands[name].hidden:
                yield from commands(root.commands[name], f"{path} {name}")
    else:
        yield path, root.get_short_help_str(400)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page: Path) -> None:
    broken = []
    for link in LINK.findall(FENCE.sub("", page.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert not broken, f"{page.name}: these links lead nowhere: {broken}"


def test_a_test_that_is_named_is_there() -> None:
    for page in PAGES:
        for name, function in TEST.findall(page.read_text()):
            assert (ROOT / name).is_file(), f"{page}: {name}"
            assert f"def {function}" in (ROOT / name).read_text(), f"{page}: {name}::{function}"


# The sections of docs/trust.md that promise something. "What is not covered" tells what is not so.
PROMISING = (
    "Keys and certificates", "The chain", "In the TPM", "In the kernel", "What a service may do",
    "Services on the network", "Whom we assume",
)  # fmt: skip
# How what promises nothing begins, and why it is none.
NO_PROMISE = {
    "Not there yet:": "it is not there",
    "Besides what [design]": "says how to read what follows",
    "What a service in the network of the host": "says what is not held back",
    "- **Somebody with the disk**": "says what they may do",
    "- **Somebody with the machine**": "says what they may do",
    "- **A service that was taken over**": "says what it may do",
}


def statements(text: str) -> list[str]:
    """Return each paragraph and each bullet of ``text``, but for tables and what is fenced."""
    text = re.sub(r"\n(?=- )", "\n\n", FENCE.sub("", text))
    found = [each.strip() for each in re.split(r"\n{2,}", text)]
    return [each for each in found if each and not each.startswith("|")]


def test_each_promise_names_the_test_that_proves_it() -> None:
    """That the tests exist is checked above."""
    trust = (ROOT / "docs/trust.md").read_text()
    said = [each for title in PROMISING for each in statements(section(trust, title))]
    bare = [each for each in said if not TEST.search(each)]
    assert [each for each in bare if not each.startswith(tuple(NO_PROMISE))] == []
    assert [word for word in NO_PROMISE if not any(each.startswith(word) for each in bare)] == []
    *_, chain = section(trust, "The chain").partition("| object |")
    rows = [line.split("|")[1:-1] for line in chain.splitlines()[2:] if line.startswith("|")]
    assert len(rows) > 15
    assert [row[0].strip() for row in rows if len(row) != 5 or not TEST.search(row[-1])] == []


def test_the_pages_of_long_runs_are_about_this_tree() -> None:
    """They are written by hand of a target, so they can be forgotten."""
    mutants, proofs = (ROOT / f"docs/{name}.md" for name in ("mutants", "proofs"))
    for name in re.findall(r"\bsrc/machineos/[\w/]+\.py", mutants.read_text()):
        assert (ROOT / name).is_file(), name
    (share,) = re.findall(r"were noticed \(([\d.]+)%\)", mutants.read_text())
    assert float(share) >= 95
    guests = "".join(path.read_text() for path in (ROOT / "tests/vm").glob("test_*.py"))
    marked = re.findall(r"@pytest\.mark\.proof\ndef (\w+)", guests)
    assert sorted(re.findall(r"^\| `(\w+)` .* holds \|$", proofs.read_text(), re.M)) == sorted(
        marked
    )


def test_every_page_is_reached_from_readme() -> None:
    seen = {ROOT / "README.md"}
    left = list(seen)
    while left:
        page = left.pop()
        for link in LINK.findall(FENCE.sub("", page.read_text())):
            target = (page.parent / link.partition("#")[0]).resolve()
            if target.suffix == ".md" and target.is_file() and target not in seen:
                seen.add(target)
                left.append(target)
    missing = [str(page.relative_to(ROOT)) for page in PAGES if page not in seen]
    assert not missing, f"no page links to: {missing}"


def test_readme_names_the_commands_that_are_installed() -> None:
    named = {cell.strip("`") for cell in first_cells(section(readme(), "Commands"))}
    assert named == set(scripts())


def test_readme_names_the_folders_of_the_package() -> None:
    named = {cell.strip("`/") for cell in first_cells(section(readme(), "Where things are"))}
    package = ROOT / "src/machineos"
    there = {entry.parent.name for entry in package.glob("*/__init__.py")}
    assert {name for name in named if (package / name).is_dir()} == there


@pytest.mark.parametrize("name", sorted(scripts()))
def test_commands_page_lists_what_help_lists(name: str) -> None:
    module, _, _ = scripts()[name].partition(":")
    loaded = importlib.import_module(module)
    groups = [
        value
        for value in vars(loaded).values()
        if isinstance(value, click.Group) and value.name == name
    ]
    assert len(groups) == 1
    expected = [f"| `{words}` | {summary} |" for words, summary in commands(groups[0], name)]
    text = section((ROOT / "docs/commands.md").read_text(), name)
    listed = [line for line in text.splitlines() if line.startswith(f"| `{name} ")]
    assert listed == expected, "write these rows:\n" + "\n".join(expected)


def test_exit_codes_are_those_of_errors() -> None:
    text = section((ROOT / "docs/commands.md").read_text(), "Exit codes")
    listed: dict[str, int] = {}
    for line in text.splitlines():
        row = re.match(r"\| (\d+) \| ([^|]*) \|", line)
        if row:
            listed |= {name: int(row[1]) for name in re.findall(r"`(\w+)`", row[2])}
    real = {name: getattr(errors, name).exit_code for name in errors.__all__ if name != "Fault"}
    assert listed == real
    assert re.search(rf"^\| {INTERRUPTED} \|", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("title", "model"),
    [
        ("Hand-over", handover.Handover),
        ("Hand-over", handover.Service),
        ("Hand-over", handover.Layer),
        ("Hand-over", handover.Volume),
        ("Hand-over", status.Status),
        ("Hand-over", status.ServiceStatus),
        ("Leases", leases.Leases),
        ("Leases", leases.Lease),
        ("Initrd", bootsettings.Settings),
        ("manifest.lock", lock.Builder),
        ("manifest.lock", inputs.Input),
    ],
)
def test_formats_names_every_key(title: str, model: type[msgspec.Struct]) -> None:
    text = section((ROOT / "docs/formats.md").read_text(), title)
    keys = [field.encode_name for field in msgspec.structs.fields(model)]
    assert not [key for key in keys if f"`{key}`" not in text and f"`{key}[]`" not in text]


def test_design_lists_every_decision() -> None:
    listed = re.findall(r"\]\(adr/([\w-]+\.md)\) \|", (ROOT / "docs/design.md").read_text())
    assert listed == sorted(page.name for page in (ROOT / "docs/adr").glob("*.md"))


def test_decision_records_are_numbered_without_gaps() -> None:
    records = sorted((ROOT / "docs/adr").glob("*.md"))
    assert [int(page.name[:4]) for page in records] == list(range(1, len(records) + 1))
    for page in records:
        text = page.read_text()
        assert text.startswith(f"# {page.name[:4]}: "), page.name
        for title in ("Context", "Decision", "Consequences"):
            assert f"\n## {title}\n" in text, f"{page.name} has no {title}"


def readme() -> str:
    return (ROOT / "README.md").read_text()
