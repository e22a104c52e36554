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
    "boot", "install", "state", "service", "daemon", "cli/developer/mosb_manifest.py",
)  # fmt: skip
# Words of rules that are everybody's: what else is said with them, outside of the rules.
SHARED = {
    "bytes, at most": "a transfer tells how much too large something is",
    "does not exist": "of a file, a program or a device that is not there",
    "has more than": "an archive, an index or a list of policies is too long to be read",
    "is missing or empty": "a word is a type of its own, whose values are checked when made",
    "is not NAME=VALUE": "an argument of the command line",
    "is not an IPv": "the host of a reference, and the address of a port of a test machine",
    "is not an absolute path": "a path in a recipe, and in the document of a test machine",
    "the machine is": "a test machine is running or stopped",
}
# Those of them that a room says which judges, of the files that it works with.
SHARED_BY_JUDGES = {
    "does not exist": {"daemon/start.py", "service/act/rootfs.py"},
}
JUDGING = ("document", "build/publish", "service/plan", "boot", "install", "state")
# Where something is refused that is no rule about what a machine may run.
BESIDE = {
    "boot/drivers.py:Drivers._begin": "the kernel refuses our own modules",
    "boot/machine.py:Machine._opened": "a defect of ours",
    "boot/main.py:check_command_line": "only the boot sees the line that the firmware passed on",
    "boot/phases/configuration.py:_refusal": "no disk opens with the sealed key",
    "boot/phases/first_door.py:check_shut": "the TPM does not do what it was asked for",
    "boot/phases/identity.py:check_machine": "only the boot sees the machine's own serial",
    "boot/phases/requests.py:_version": "a defect of the boot, which counted the layers",
    "boot/phases/root.py:_require_volume": "only the image itself knows its modules",
    "boot/phases/storage.py:_check": "the disk cannot be read",
    "boot/phases/store.py:partition_of": "a partition is not there",
    "boot/phases/unseal.py:_Phase.talk": "a file of our own initrd is not there",
    "boot/phases/volumes.py:_open": "a volume of the disk cannot be read",
    "boot/waiting.py:wait_for": "a device did not appear",
    "build/publish/lock.py:_judged.fault": "a value that cannot be read",
    "build/publish/lock.py:parse_lock": "hands on the faults of the rules with their lines",
    "build/publish/lock.py:require_fit": "a file of the builder, which is made anew",
    "build/publish/plan.py:_Resolver._manifest": "what is locked is not at its source",
    "build/publish/plan.py:_exactly": "what is at the source is not what was asked for",
    "build/publish/plan.py:_check_hardware": "the bootkit is for something else",
    "build/publish/plan.py:_Resolver._read": "a defect of ours",
    "build/publish/plan.py:_version": "nothing says which version it is",
    "build/publish/publish.py:write": "the registry stored something else",
    "build/publish/showing.py:_require_free": "the folder is in use",
    "build/publish/showing.py:hide": "nothing is shown there",
    "build/publish/ways.py:plan": "the machine cannot mount",
    "build/publish/source.py:FileName.parse": "a value that cannot be read",
    "build/publish/source.py:Mebibytes.parse": "a value that cannot be read",
    "build/publish/source.py:parse_source": "hands on the faults of the rules with their lines",
    "build/publish/together.py:raise_all": "hands on several errors as one",
    "build/publish/verify.py:require_beside": "a blob in the registry is damaged",
    "build/publish/verify.py:_require_blobs": "a blob is not in the registry",
    "build/publish/verify.py:_require_whole": "a blob in the registry is damaged",
    "document/model/hardware.py:PackageName.parse": "a value that cannot be read",
    "document/product/artifacts.py:Referrers._manifest": "an artifact of a stranger is passed over",
    "document/product/install.py:parse_install": "a value that cannot be read",
    "document/state/leases.py:_address_faults": "a file of mosd, which is made anew",
    "document/state/leases.py:parse_leases": "the same",
    "document/state/requests.py:parse_request": "what root asks a boot for; no manifest has it",
    "document/verify/proof.py:Proof.require": "a defect of ours",
    "document/verify/published.py:_refusal": "no pair of certificate and signature verifies",
    "document/verify/published.py:fetch_install": "it is not a manifest at all",
    "document/verify/published.py:verify_install": "it is too large to be read",
    "install/main.py:wish_of": "arguments that exclude each other",
    "install/plan.py:_named": "the disk that somebody named is unfit",
    "install/plan.py:choose_disk": "it is not clear which disk",
    "install/plan.py:partition_plan": "the disk is too small",
    "install/source.py:_check": "only the machine itself knows what started it",
    "install/source.py:_from_medium": "a file of the medium is not there",
    "install/source.py:parse_medium": "the medium holds no manifest",
    "install/source.py:parse_request": "a value that cannot be read",
    "install/stage.py:check_images": "the memory is too small",
    "install/write.py:_find": "partitions did not appear in time",
    "install/write.py:find_devices": "the same, at one look",
    "service/plan/facts.py:known": "a defect of ours",
    "service/plan/image.py:check_blob": "a blob of the store is missing or damaged",
    "service/plan/lxc.py:_network": "a defect of ours",
    "service/plan/volumes.py:wanted": "a defect of the boot, which judged the manifests",
    "state/config/store.py:create_store": "there is a store already",
    "state/slots/steps.py:Slot.__post_init__": "a defect of ours",
    "state/slots/steps.py:check_read_back": "the disk does not keep what is written",
    "state/store/act.py:store_image": "a signature was not stored with its image",
    "state/volumes/header.py:check_header": "the header of the disk is not the one we wrote",
    "state/volumes/sealed.py:_sealed": "a header that root may have written is not as ours are",
    "state/volumes/sealed.py:read_token": "the same",
    "state/volumes/service.py:LogicalVolumes.open": "only the initrd opens what is closed",
    "state/volumes/service.py:_require_folder": "only the volume shows what stands in its place",
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
    """In no room at all, but for words that are everybody's."""
    everywhere = spoken(".")
    beside = {module: found for module, found in everywhere.items() if not rule(module)}
    assert len(beside) > 200
    assert len(sentences()) > 50
    assert {piece for piece in sentences() if saying(piece, beside)} == set(SHARED)


def test_who_judges_uses_no_words_of_a_rule() -> None:
    judges = spoken(*JUDGES)
    found = {piece: modules for piece in sentences() if (modules := saying(piece, judges))}
    assert found == SHARED_BY_JUDGES


def rule(module: str) -> bool:
    return RULES in (SOURCE / module).parents


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
        for path in modules(*JUDGING)
        if RULES not in path.parents
        for where in refusals(ast.parse(path.read_text()), "")
    }
    assert found == set(BESIDE)
