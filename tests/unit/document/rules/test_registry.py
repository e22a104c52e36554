"""The registry: complete, in order, and the judgement of a whole manifest."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from machineos.document.rules.registry import RULES, document_order, judge
from machineos.document.rules.rule import DOCUMENT, Rule
from machineos.document.rules.subject import declared
from machineos.errors import ConflictError, PolicyError, VerificationError
from unit.document.product.test_install import SEED
from unit.document.rules.samples import declaration, mount, port, simple, target, volume

FOLDER = Path(__file__).parents[4] / "src/machineos/document/rules"
PAGE = Path(__file__).parents[4] / "docs/rules.md"
MACHINE = {"verify", "install", "boot", "mosd"}


def test_every_rule_has_a_name_of_its_own_and_a_sentence() -> None:
    names = [one.name for one in RULES]
    assert len(names) == len(set(names))
    for one in RULES:
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", one.name), one.name
        assert one.statement.endswith(".")
        assert one.statement[0].isupper()
        assert one.gates
        assert len(set(one.gates)) == len(one.gates)


def test_the_page_has_every_rule() -> None:
    rows = [
        line for line in PAGE.read_text().splitlines() if re.match(r"\| [a-z]+(-[a-z]+)* \|", line)
    ]
    assert rows[1:] == [
        f"| {one.name} | {one.statement} | {', '.join(one.gates)} |" for one in RULES
    ]


def test_every_rule_that_is_written_is_in_the_registry() -> None:
    written = [
        node.args[0].value
        for path in sorted(FOLDER.glob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "Rule"
        and isinstance(node.args[0], ast.Constant)
    ]
    assert sorted(map(str, written)) == sorted(one.name for one in RULES)


def test_what_a_machine_refuses_the_publisher_refuses_first() -> None:
    """Except what only a machine can see: what it has stored, what it was handed, who signed."""
    alone = {one.name for one in RULES if "publish" not in one.gates}
    assert alone == {
        # the publisher writes down what is there, and signs it
        "image-digest", "image-size", "root-hash-signed",
        # which documents come together, and when, is known on the machine
        "product-complete", "product-publisher", "product-same-name",
        # the machine's own files
        "system-count", "system-document", "system-document-once", "system-group",
        "system-group-once", "id-range-inside", "id-range-apart", "id-range-free",
        "id-range-given", "handover-name", "handover-once", "handover-digest",
        "handover-root-hash", "handover-ids", "handover-key", "handover-label", "handover-group",
        "handover-config",
        "handover-layer",
    }  # fmt: skip
    for one in RULES:
        if one.name not in alone and set(one.gates) & MACHINE:
            assert one.gates[0] == "publish"


def test_a_rule_tells_faults_or_raises() -> None:
    def breaches(subject: int) -> list[tuple[str, str]]:
        return [(f"p{number}", f"is {number}") for number in range(subject)]

    plain = Rule("x", "X.", DOCUMENT, breaches)
    faults = plain.faults(2)
    assert [(one.path, one.line, one.message, one.rule) for one in faults] == [
        ("p0", 0, "is 0", "x"),
        ("p1", 0, "is 1", "x"),
    ]
    assert plain.faults(0) == []
    plain.require(0, "it")
    with pytest.raises(VerificationError) as caught:
        plain.require(2, "it")
    assert (caught.value.message, caught.value.hint, caught.value.rule) == ("it: is 0", "", "x")
    special = Rule("y", "Y.", DOCUMENT, breaches, ConflictError, "do it again")
    with pytest.raises(ConflictError) as other:
        special.require(1, "it")
    assert (other.value.hint, other.value.rule) == ("do it again", "y")
    assert not issubclass(PolicyError, ConflictError)


def test_a_good_manifest_has_no_faults() -> None:
    assert judge(declared(SEED)) == []


def test_all_faults_are_told_in_document_order() -> None:
    bad = declaration(
        simple("b", ports=(port(0), port(1, 0)), ipv6="y", ipv4="x"),
        target("A", version="", size=0, digest="", nsgroup="/", storage=(mount("", "/"),)),
        storage=(volume("a/", size=0, nsgroup="/"), volume("esp")),
        product="",
        version=2,
    )
    found = [(fault.path, fault.rule) for fault in judge(bad)]
    assert found == [
        ("version", "document-version"),
        ("product", "product-name"),
        ("storage[0].label", "storage-label"),
        ("storage[0].nsgroup", "storage-group"),
        ("storage[0].size", "storage-size"),
        ("storage[1].label", "storage-label-free"),
        ("targets[0].network.ipv4", "address"),
        ("targets[0].network.ipv6", "address"),
        ("targets[0].network.ports[0].host", "port"),
        ("targets[0].network.ports[1].container", "port"),
        ("targets[1].service_name", "target-name"),
        ("targets[1].version", "target-version"),
        ("targets[1].nsgroup", "target-group"),
        ("targets[1].digest", "target-digest"),
        ("targets[1].storage[0].dest", "mount-dest"),
        ("targets[1].storage[0].label", "mount-label"),
        ("targets[1].storage[0].label", "mount-known"),
        ("targets[1].size", "target-size"),
    ]


def test_of_too_much_only_that_is_said() -> None:
    many = [target("/") for _ in range(513)]
    found = [(fault.path, fault.rule) for fault in judge(declaration(*many, version=2))]
    assert found == [("version", "document-version"), ("targets", "target-count")]


def test_paths_are_ordered_by_number_and_key() -> None:
    paths = [
        "version", "product", "update_type", "storage", "storage[0].label", "storage[2].label",
        "storage[10].label", "targets", "targets[0].service_name", "targets[0].source",
        "targets[0].version", "targets[0].service_type", "targets[0].network.type",
        "targets[0].network.ipv4", "targets[0].network.ipv6", "targets[0].network.ports",
        "targets[0].network.ports[0].host", "targets[0].network.ports[0].container",
        "targets[0].network.ports[0].protocol", "targets[0].nsgroup", "targets[0].digest",
        "targets[0].storage[0].dest", "targets[0].storage[0].label", "targets[0].size",
        "targets[1].service_name",
    ]  # fmt: skip
    mixed = sorted(paths, key=lambda path: path[::-1])
    assert mixed != paths
    assert sorted(mixed, key=document_order) == paths
