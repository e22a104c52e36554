"""One rule, one place: found from the source, so that nobody has to remember it.

The rooms that judge what somebody else wrote may say no only by a rule of the registry. What they
say beside it is listed here, each with its reason; and no sentence of a rule stands anywhere else.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).parents[4] / "src/machineos"
RULES = SOURCE / "document/rules"
JUDGES = (
    "document/product", "document/verify", "document/state", "document/between", "build/publish",
    "boot", "install", "service", "daemon", "cli/developer/mosb_manifest.py",
)  # fmt: skip
# Where something is refused that is no rule about what a machine may run.
BESIDE = {
    "build/publish/plan.py:_platform": "there is no image for our platform",
    "build/publish/plan.py:_version": "nothing says which version it is",
    "build/publish/publish.py:write": "the registry stored something else",
    "build/publish/source.py:Mebibytes.parse": "a value that cannot be read",
    "build/publish/source.py:parse_source": "hands on the faults of the rules with their lines",
    "build/publish/verify.py:_require_blobs": "a blob is not in the registry",
    "build/publish/verify.py:_require_whole": "a blob in the registry is damaged",
    "document/product/artifacts.py:Referrers._manifest": "an artifact of a stranger is passed over",
    "document/product/install.py:parse_install": "a value that cannot be read",
    "document/state/leases.py:_address_faults": "a file of mosd, which is made anew",
    "document/state/leases.py:parse_leases": "the same",
    "document/verify/proof.py:Proof.require": "a defect of ours",
    "document/verify/published.py:_refusal": "no pair of certificate and signature verifies",
    "document/verify/published.py:fetch_install": "it is not a manifest at all",
    "document/verify/published.py:verify_install": "it is too large to be read",
    "service/plan/facts.py:known": "a defect of ours",
    "service/plan/image.py:check_blob": "a blob of the store is missing or damaged",
    "service/plan/lxc.py:_network": "a defect of ours",
    "service/plan/volumes.py:_new": "LVM does not show what it has",
    "service/plan/volumes.py:wanted": "a defect of the boot, which judged the manifests",
}


def modules(*rooms: str) -> Iterator[Path]:
    for room in rooms:
        path = SOURCE / room
        yield from [path] if path.is_file() else sorted(path.rglob("*.py"))


def name(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def texts(tree: ast.AST) -> Iterator[str]:
    """Yield the string constants of a tree that are no docstrings."""
    docs = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield node.value


def sentences() -> set[str]:
    """Return the pieces of what rules say, long enough to be theirs alone."""
    functions = [
        node
        for path in RULES.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
    ]
    return {
        piece
        for function in functions
        for text in texts(function)
        if len(piece := text.strip(" ,:")) >= 12 and " " in piece
    }


def spoken(*rooms: str) -> dict[str, tuple[str, ...]]:
    """Return what the modules of rooms say, by their names."""
    return {name(path): tuple(texts(ast.parse(path.read_text()))) for path in modules(*rooms)}


def saying(piece: str, said: dict[str, tuple[str, ...]]) -> set[str]:
    """Return the modules that say a piece."""
    return {module for module, found in said.items() if any(piece in text for text in found)}


def test_the_sentences_of_a_rule_stand_in_one_place() -> None:
    elsewhere = spoken("core", "oci", "host", "trust", "vm", "build/recipe", "build/os")
    own = {piece for piece in sentences() if not saying(piece, elsewhere)}
    assert len(own) > 40
    judges = spoken(*JUDGES)
    assert {piece: found for piece in own if (found := saying(piece, judges))} == {}


def refusals(node: ast.AST, inside: str) -> Iterator[str]:
    """Yield the functions that make an error or a fault in words of their own."""
    for child in ast.iter_child_nodes(node):
        where = inside
        if isinstance(child, (ast.FunctionDef, ast.ClassDef)):
            where = f"{inside}.{child.name}" if inside else child.name
        if isinstance(child, ast.Call) and isinstance(child.func, ast.Name):
            called = child.func.id
            # A DocumentError only carries faults: what they say is asked of each fault.
            if called == "Fault" or (called.endswith("Error") and called != "DocumentError"):
                yield inside
        yield from refusals(child, where)


def test_who_judges_says_no_by_a_rule() -> None:
    found = {
        f"{name(path)}:{where}"
        for path in modules("document", "build/publish", "service/plan")
        if RULES not in path.parents
        for where in refusals(ast.parse(path.read_text()), "")
    }
    assert found == set(BESIDE)
