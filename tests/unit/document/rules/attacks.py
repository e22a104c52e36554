"""How a bad input gets to each gate: changes of documents, of images, of what a machine stores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec

from changed import replace
from machineos.build.recipe.conversion import Conversion
from machineos.build.recipe.convert import convert_image
from machineos.core.clock import SystemClock
from machineos.core.digest import Digest
from machineos.core.word import RootHash
from machineos.document.model.install import Mount
from machineos.document.rules.bootable import SHOWN, Part, require_root_part
from machineos.document.rules.rule import DOCUMENT, Gate
from machineos.document.rules.storage import KERNEL_FOLDERS
from machineos.document.state.system import merge, system_file
from machineos.document.verify.images import verify_target
from machineos.oci.layout.folder import LayoutRepository
from machineos.oci.model.atomfs import root_hash_annotations
from machineos.oci.model.documents import MANIFEST, VERSION_LABEL, Descriptor, parse_manifest
from machineos.oci.model.repository import Repository
from unit.build import images, ready
from unit.build.elf import program
from unit.build.tarmaker import END, folder, member, symlink
from unit.document.conftest import SQUASHFS, put_image, signed
from unit.document.product.test_install import SEED
from unit.document.rules import gates
from unit.document.rules.gates import Change, Json, Scene

Attack = Callable[[Scene], object]


@dataclass(frozen=True)
class Bad:
    """What every gate has to say, and the bad input on its way to each."""

    words: str
    attacks: dict[Gate, Attack]


IN_DOCUMENT: dict[Gate, Callable[[Scene, Json], None]] = {
    "publish": gates.publish,
    "verify": gates.verify,
    "install": gates.install,
    "boot": gates.boot,
    "mosd": gates.mosd,
}


def document(change: Change, words: str, *more: Gate, at: tuple[Gate, ...] = DOCUMENT) -> Bad:
    """A change in a document, seen by all who read documents."""

    def attack(gate: Callable[[Scene, Json], None], scene: Scene) -> None:
        bad = scene.document()
        change(bad)
        gate(scene, bad)

    return Bad(words, {gate: partial(attack, IN_DOCUMENT[gate]) for gate in (*at, *more)})


def first(key: str, value: object) -> Change:
    """Change a value of the first target."""
    return lambda bad: bad["targets"][0].update({key: value})


def network(*parts: Json) -> Change:
    """Change the networks of the first targets."""

    def change(bad: Json) -> None:
        for target, part in zip(bad["targets"], parts, strict=False):
            target["network"] = {"type": "simple", **part}

    return change


def volume(key: str, value: object) -> Change:
    """Change a value of the volume, and what mounts it."""

    def change(bad: Json) -> None:
        bad["storage"][0][key] = value
        if key == "label":
            bad["targets"][0]["storage"] = []

    return change


def mounts(*items: Json) -> Change:
    """Change what the first target mounts."""
    return first("storage", list(items))


def many(count: int, **values: object) -> Change:
    """Add targets."""

    def change(bad: Json) -> None:
        for number in range(count):
            other = bad["targets"][1]
            bad["targets"].append({**other, "service_name": f"t{number}", **values})

    return change


def drop(name: str) -> Change:
    """Leave a target out."""

    def change(bad: Json) -> None:
        bad["targets"] = [one for one in bad["targets"] if one["service_name"] != name]

    return change


def ports(count: int) -> Change:
    """Forward many ports to the first target."""
    wanted = [{"host": 1 + number, "container": 1} for number in range(count)]
    return network({"ports": wanted})


def manifest(change: Change, words: str) -> Bad:
    """A change that only manifest.yaml can have."""

    def attack(scene: Scene) -> None:
        bad = msgspec.json.decode(scene.source(scene.document()))
        change(bad)
        scene.world.publish(msgspec.json.encode(bad).decode(), **scene.options)

    return Bad(words, {"publish": attack})


def unset(key: str) -> Change:
    """Leave a value of the first target out."""
    return lambda bad: bad["targets"][0].pop(key)


def after(*steps: Attack) -> Attack:
    """Do one after the other."""

    def attack(scene: Scene) -> None:
        for step in steps:
            step(scene)

    return attack


def image(
    put: Callable[[Scene], object],
    words: str,
    *,
    at: tuple[Gate, ...] = ("publish", "verify", "install", "boot", "mosd"),
) -> Bad:
    """A bad image, which the publisher finds and which somebody signs all the same."""

    careless = gates.publish_carelessly
    everywhere: dict[Gate, Attack] = {
        "publish": after(put, gates.publish_image),
        "verify": after(put, careless, gates.verify_signed),
        "install": after(put, careless, gates.install_signed),
        "boot": after(put, careless, gates.boot_signed),
        "mosd": after(put, gates.mosd_image),
    }
    return Bad(words, {gate: everywhere[gate] for gate in at})


def stored(
    *,
    media_type: str = SQUASHFS,
    annotated: bool = True,
    run: dict[str, object] | None = None,
    architecture: str = "amd64",
) -> Callable[[Scene], object]:
    """Put another image in the place of the good one."""
    return lambda scene: put_image(
        scene.images,
        "zot",
        contents=(b"bad",),
        media_type=media_type,
        annotated=annotated,
        run=run,
        architecture=architecture,
    )


def unmountable(words: str, content: bytes) -> Bad:
    """An image whose layer is something else than its type says."""

    def put(scene: Scene) -> None:
        put_image(scene.images, "zot", contents=(content,), raw=True)

    careless = gates.publish_carelessly
    return Bad(
        words,
        {
            "publish": after(put, gates.publish_image),
            "verify": after(put, careless, gates.verify_signed),
            "install": after(put, careless, gates.install_signed),
            "boot": after(put, careless, gates.boot_layer),
            "mosd": after(put, careless, gates.mosd_layer),
        },
    )


def other_config(scene: Scene) -> None:
    """An image whose configuration is of another type."""
    found = parse_manifest(scene.images.manifest("zot")[1], name="zot")
    config = msgspec.structs.replace(found.config, media_type="application/x")
    bad = msgspec.structs.replace(found, config=config)
    scene.images.put_manifest(bad.to_bytes(), media_type=MANIFEST, tag="zot")


class BadConverter:
    """A converter that makes something else than a file system."""

    def convert(
        self, repository: LayoutRepository, _reference: str, _mounts: object
    ) -> tuple[LayoutRepository, Descriptor]:
        layout = LayoutRepository(repository.path, writable=True)
        content = b"not a file system"
        return layout, put_image(layout, "out", contents=(content,), media_type="application/x")


def mixed(scene: Scene) -> None:
    """An image with one layer of each kind."""
    found = parse_manifest(scene.images.manifest("two")[1], name="two")
    first, second = found.layers
    notes = root_hash_annotations(RootHash(Digest.of(b"root").hex))
    layers = (first, msgspec.structs.replace(second, media_type="tar", annotations=notes))
    bad = msgspec.structs.replace(found, layers=layers)
    scene.images.put_manifest(bad.to_bytes(), media_type=MANIFEST, tag="zot")


def bad_conversion(scene: Scene) -> None:
    """An image that nobody can mount, also after its conversion."""
    scene.options["converter"] = BadConverter()
    put_image(scene.images, "zot", contents=(b"tar",), media_type="application/x")


def config(words: str, *, architecture: str = "amd64", **run: object) -> Bad:
    """An image whose configuration asks for something that cannot be."""

    put = stored(run=run, architecture=architecture)
    found: dict[Gate, Attack] = {
        "publish": after(put, gates.publish_image),
        "verify": after(put, gates.publish_carelessly, gates.verify_signed),
        "mosd": after(put, gates.mosd_image),
    }
    if "Entrypoint" not in run:
        found["convert"] = after(put, gates.convert)
    return Bad(words, found)


def unsigned(gate: Attack) -> Attack:
    """All is signed but a root hash."""

    def attack(scene: Scene) -> None:
        gates.publish_carelessly(scene)
        store = scene.world.registry.repository("mos")
        found = scene.images.resolve("zot")
        for entry in store.referrers(found.digest):
            del store.blobs[entry.digest]
        gate(scene)

    return attack


def swapped(scene: Scene) -> None:
    """A repository that gives other bytes of the same size for a digest."""
    gates.publish_carelessly(scene)
    store = scene.world.registry.repository("mos")
    target = gates.fetch(scene).verified.install.targets[0]

    class Swaps:
        def manifest(self, reference: str) -> tuple[Descriptor, bytes]:
            descriptor, data = store.manifest(reference)
            return descriptor, data.replace(b"squashfs", b"squashfz")

    verify_target(Swaps(), target)  # type: ignore[arg-type]


class Unpacking:
    """The real converter, into a folder of the scene."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene

    def convert(
        self, repository: Repository, reference: str, mounts: tuple[Mount, ...] | None
    ) -> tuple[LayoutRepository, Descriptor]:
        sink = LayoutRepository(self._scene.folder / "converted", writable=True)
        asked = Conversion(self._scene.folder, clock=SystemClock(), epoch=0, mounts=mounts)
        return sink, convert_image(repository, reference, sink, asked)


def put_archive(layer: bytes, **run: object) -> Attack:
    """Put an image of archives in the place of the good one."""

    def attack(scene: Scene) -> None:
        config = {"Entrypoint": ["/bin/x"], **run}
        images.put(scene.images, layer + END, tag="zot", config=config)

    return attack


def archives(layer: bytes, **run: object) -> Attack:
    """Publish an image of archives, which has to be converted."""

    def converting(scene: Scene) -> None:
        scene.options["converter"] = Unpacking(scene)

    return after(converting, put_archive(layer, **run), gates.publish_image)


STACKED = b"".join(folder(f"{name}/") for name in ("bin", "data", "dev", "proc", "sys")) + member(
    "bin/x", program(7), mode=0o755
)
linked = archives(folder("etc/") + symlink("data", "/etc"))
away = archives(folder("data/") + folder("etc/") + symlink("etc/passwd", "/etc/shadow"))
nobody = archives(folder("data/"), User="app")


def looked_into(spoil: Callable[[Path], object], **run: object) -> Attack:
    """Sign an image that is ready made, whatever is in it, and look into it."""

    def put(scene: Scene) -> None:
        tree = ready.tree(scene.folder / "tree", "etc")
        (tree / "data").mkdir()
        spoil(tree)
        ready.put(scene.images, "zot", ready.packed(tree), run=run)

    return after(put, gates.publish_carelessly, gates.verify_deeply)


def no_modules(scene: Scene) -> None:
    """A root in which the kernel's modules cannot be shown."""
    tree = ready.tree(scene.folder / "tree", "usr")
    ready.put(scene.images, "hostfs", ready.packed(tree), run={"Labels": {VERSION_LABEL: "1"}})


def publish_looking(scene: Scene) -> None:
    """The publisher, who looks into every image."""
    scene.options["inspector"] = gates.inspector(scene)
    gates.publish_image(scene)


def boot_without_modules(_scene: Scene) -> None:
    """The initrd has mounted such a root."""
    require_root_part(Part("folder", SHOWN[0]), there=False)


def link_data(tree: Path) -> None:
    """Put a link in the place of the folder of a volume."""
    (tree / "data").rmdir()
    (tree / "data").symlink_to("/etc")


def link_users(tree: Path) -> None:
    """Have the users in a file elsewhere."""
    (tree / "etc/passwd").symlink_to("/etc/shadow")


def add_program(tree: Path) -> None:
    """Have a program whose stack can be executed."""
    (tree / "bin/x").write_bytes(program(7))


def mosd_linked(scene: Scene) -> None:
    """Mount a volume in the root of an image that has a link there."""
    root = rooted(scene)
    (root / "data").symlink_to("/etc")
    gates.mosd_inside(scene, (Mount(dest="/data", label="data"),))


def mosd_away(scene: Scene) -> None:
    """Run an image whose users are in a file elsewhere."""
    (rooted(scene) / "etc").mkdir()
    (scene.folder / "root/etc/passwd").symlink_to("/etc/shadow")
    gates.mosd_inside(scene)


def mosd_nobody(scene: Scene) -> None:
    """Run an image as a user that it does not know."""
    rooted(scene)
    gates.mosd_inside(scene, user="app")


def rooted(scene: Scene) -> Path:
    """Make the root of an image that has what every image needs."""
    root = scene.folder / "root"
    for name in KERNEL_FOLDERS:
        (root / name.strip("/")).mkdir(parents=True)
    return root


def system(change: Change, words: str) -> Bad:
    """A change in the system file."""
    return Bad(words, {"boot": lambda scene: gates.boot_system(scene, change)})


def handover(change: Change, words: str) -> Bad:
    """A change in the second service of a hand-over."""
    return Bad(
        words,
        {"mosd": lambda scene: gates.mosd_handover(scene, lambda bad: change(bad["services"][1]))},
    )


def borrowed(bad: Json) -> None:
    """Let the second service of a hand-over mount a volume of another group."""
    bad["services"][1]["storage"] = [{"dest": "/data", "label": "data"}]
    bad["volumes"] = [{"label": "data", "persistent": True, "size": 1, "nsgroup": "other"}]


def two_names(scene: Scene) -> None:
    """Two documents of one publisher for machines with different names."""
    good = scene.document()
    one = scene.sign(good)
    other = scene.sign({**good, "product": "other"})
    gates.boot_from(scene, gates.store_config(scene, one, other))


def too_many_documents() -> None:
    """Store a system of more documents than one may have."""
    found = merge([signed(SEED.to_bytes())])
    many = (found.manifests[0],) * 65
    groups = {str(group): 100000 for group in found.groups}
    system_file(replace(found, manifests=many), groups)


def full() -> dict[str, int]:
    """Return ranges that leave none free."""
    return {f"g{n}": first for n, first in enumerate(range(100000, (1 << 32) - 65537, 65536))}
