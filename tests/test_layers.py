"""The layers and the artifacts: what pyproject.toml proves is what the code ships."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from effects import read_modules, with_effects
from machineos.build.os.contents import ARTIFACTS, sources

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src/machineos"
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"][
    "contracts"
]


def modules(paths: tuple[Path, ...]) -> set[str]:
    return {
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
        for path in paths
    }


def covered(names: list[str], module: str) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in names)


@pytest.mark.parametrize("name", sorted(ARTIFACTS))
def test_an_artifact_has_a_contract_with_the_same_rooms(name: str) -> None:
    """What it holds may import nothing that it does not hold; every module is on one side."""
    (contract,) = [one for one in CONTRACTS if one["name"].startswith(f"Artifact {name}:")]
    held = modules(sources(PACKAGE, ARTIFACTS[name]))
    everything = modules(tuple(PACKAGE.rglob("*.py")))
    packages = {
        module for module in everything if (PACKAGE.parent / module.replace(".", "/")).is_dir()
    }
    inside = {module for module in everything if covered(contract["source_modules"], module)}
    outside = {module for module in everything if covered(contract["forbidden_modules"], module)}
    assert not inside & outside
    assert held - inside <= packages, "an artifact holds what its contract does not speak of"
    assert inside <= held
    assert everything - inside - outside <= packages, "a module is on no side of the contract"


def test_the_contracts_leave_nothing_out() -> None:
    layered = [one for one in CONTRACTS if one["type"] == "layers"]
    assert all(one["exhaustive"] for one in layered)
    assert not [one for one in CONTRACTS if one.get("ignore_imports")]
    nested = {path.parent.parent for path in PACKAGE.glob("*/*/__init__.py")}
    spoken = {name for one in layered for name in one["containers"]}
    assert spoken == {"machineos", *(f"machineos.{path.name}" for path in nested)}


# Rooms and modules that decide: nothing in them can touch the world.
DECIDES = (
    "machineos.boot.aliases",
    "machineos.boot.facts",
    "machineos.boot.phases",
    "machineos.boot.plan",
    "machineos.boot.runner",
    "machineos.boot.steps",
    "machineos.boot.waiting",
    "machineos.build.publish.draft",
    "machineos.build.publish.lock",
    "machineos.build.publish.plan",
    "machineos.build.publish.schema",
    "machineos.build.publish.source",
    "machineos.build.publish.verify",
    "machineos.build.publish.ways",
    "machineos.build.media.live",
    "machineos.build.os.bootimage",
    "machineos.build.os.imports",
    "machineos.build.os.initrdplan",
    "machineos.build.os.uki",
    "machineos.build.os.workshop",
    "machineos.build.recipe.archive",
    "machineos.build.recipe.compression",
    "machineos.build.recipe.config",
    "machineos.build.recipe.conversion",
    "machineos.build.recipe.grammar",
    "machineos.build.recipe.graph",
    "machineos.build.recipe.inputs",
    "machineos.build.recipe.member",
    "machineos.build.recipe.mountpoints",
    "machineos.build.recipe.reading",
    "machineos.build.recipe.recipe",
    "machineos.build.recipe.script",
    "machineos.build.recipe.stage",
    "machineos.build.recipe.stageplan",
    "machineos.build.recipe.substitution",
    "machineos.build.recipe.tarheader",
    "machineos.build.recipe.tree",
    "machineos.build.recipe.veritylayer",
    "machineos.cli.developer.image_shape",
    "machineos.cli.developer.keyset_shape",
    "machineos.cli.developer.machine_shape",
    "machineos.cli.operator.shape",
    "machineos.cli.options",
    "machineos.cli.shape",
    "machineos.core.command",
    "machineos.core.digest",
    "machineos.core.idrange",
    "machineos.core.facts",
    "machineos.core.jsondoc",
    "machineos.core.paths",
    "machineos.core.secret",
    "machineos.core.serviceid",
    "machineos.core.size",
    "machineos.core.steps",
    "machineos.core.word",
    "machineos.core.yamldoc",
    "machineos.document.between.bootsettings",
    "machineos.document.between.handover",
    "machineos.document.between.medium",
    "machineos.document.model",
    "machineos.document.product",
    "machineos.document.rules",
    "machineos.document.state",
    "machineos.document.state.system",
    "machineos.document.verify",
    "machineos.document",
    "machineos.host.disk.device",
    "machineos.host.disk.luks",
    "machineos.host.disk.lvm",
    "machineos.host.disk.mkfs",
    "machineos.host.disk.sfdisk",
    "machineos.host.efi",
    "machineos.host.kernel.flags",
    "machineos.host.kernel.ipepolicy",
    "machineos.host.pack.depmod",
    "machineos.host.pack.elf",
    "machineos.host.pack.erofs",
    "machineos.host.pack.fat",
    "machineos.host.pack.mmdebstrap",
    "machineos.host.pack.sbsign",
    "machineos.host.pack.shim",
    "machineos.host.pack.squashfs",
    "machineos.host.pack.container",
    "machineos.host.pack.subids",
    "machineos.host.pack.verity",
    "machineos.host.pack.xorriso",
    "machineos.host.tpm.channel",
    "machineos.host.tpm.code",
    "machineos.host.tpm.commands",
    "machineos.host.tpm.session",
    "machineos.host.tpm.wire",
    "machineos.oci.graph.deep",
    "machineos.oci.graph.walk",
    "machineos.oci.layout.listing",
    "machineos.oci.model.atomfs",
    "machineos.oci.model.documents",
    "machineos.oci.model.reference",
    "machineos.host.virt.qemu",
    "machineos.host.virt.qemuimg",
    "machineos.host.virt.qmp",
    "machineos.host.virt.swtpm",
    "machineos.host.virt.uefivars",
    "machineos.launch.request",
    "machineos.host.unit.iproute",
    "machineos.host.unit.lxc",
    "machineos.host.unit.nft",
    "machineos.host.unit.systemctl",
    "machineos.host.unit.unitfile",
    "machineos.service.plan",
    "machineos.install.phases",
    "machineos.install.plan",
    "machineos.install.source",
    "machineos.install.stage",
    "machineos.install.steps",
    "machineos.install.write",
    "machineos.oci.model.place",
    "machineos.state.config.steps",
    "machineos.state.images.steps",
    "machineos.state.slots.steps",
    "machineos.state.store.steps",
    "machineos.state.volumes.header",
    "machineos.state.volumes.steps",
    "machineos.trust.keys.contents",
    "machineos.trust.keys.enrolled",
    "machineos.trust.keys.signer",
    "machineos.trust.keys.x509",
    "machineos.trust.measure",
    "machineos.trust.seal",
    "machineos.trust.verify",
    "machineos.trust.wrap",
    "machineos.vm.document",
    "machineos.vm.medium",
    "machineos.vm.model",
    "machineos.vm.paths",
    "machineos.vm.ports",
    "machineos.vm.provider",
    "machineos.vm.qemu.accelerator",
    "machineos.vm.qemu.moves",
    "machineos.vm.qemu.placement",
    "machineos.vm.qemu.plan",
    "machineos.vm.qemu.record",
    "machineos.vm.qemu.snapshot",
    "machineos.vm.running",
)


def test_what_decides_has_no_effects() -> None:
    found = read_modules()
    effectful = with_effects(found)
    assert not [name for name in effectful if covered(list(DECIDES), name)]
    assert all(any(covered([room], name) for name in found) for room in DECIDES)


def test_the_readme_lists_the_folders_in_the_order_of_the_layers() -> None:
    """The list for people and the contract for the linter are the same list."""
    text = (ROOT / "README.md").read_text().partition("\n## Where things are\n")[2]
    rows = [line.split("|")[1:3] for line in text.partition("\n## ")[0].splitlines() if "|" in line]
    listed = {cells[0].strip(" `"): cells[1] for cells in rows if "`" in cells[0]}
    (contract,) = [one for one in CONTRACTS if one.get("containers") == ["machineos"]]
    ordered = [[name.strip() for name in layer.split("|")] for layer in contract["layers"]]
    folders = [name for name in listed if (PACKAGE / name).is_dir()]
    place = {name: rank for rank, layer in enumerate(ordered) for name in layer}
    assert [place[name] for name in folders] == sorted(place[name] for name in folders)
    assert {*folders, "errors"} == set(place)
    for one in CONTRACTS:
        for container in one.get("containers", []):
            if container == "machineos":
                continue
            rooms = {room.strip() for layer in one["layers"] for room in layer.split("|")}
            rooms -= {path.stem for path in PACKAGE.glob("*/*.py")}
            unnamed = [room for room in rooms if f"`{room}`" not in listed[container.split(".")[1]]]
            assert not unnamed, f"README does not name these rooms of {container}: {unnamed}"
