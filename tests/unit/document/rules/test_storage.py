"""Volumes, where they are seen, and the folders that an image needs for them."""

from __future__ import annotations

import pytest

from machineos.document.model.install import Mount, ServiceType, Storage
from machineos.document.model.names import GroupName, Label
from machineos.document.rules import storage
from machineos.errors import ArchiveError
from unit.document.rules.samples import breaches, mount, rule, target, volume


def volumes(name: str, *items: Storage) -> list[tuple[str, str]]:
    return breaches(name, target(), storage=tuple(items))


def mounts(name: str, *items: Mount, **changes: object) -> list[tuple[str, str]]:
    return breaches(name, target(), target("b", storage=tuple(items), **changes))


def test_how_many_volumes_there_may_be() -> None:
    most = [volume(f"v{number}") for number in range(512)]
    assert volumes("storage-count", *most) == []
    assert volumes("storage-count", *most, volume("x")) == [("storage", "has more than 512 items")]


def test_a_volume_has_a_label_and_may_have_a_group() -> None:
    assert volumes("storage-label", volume(), volume("a/b"), volume("")) == [
        ("storage[1].label", f"'a/b' is not {Label.WHAT}"),
        ("storage[2].label", "is missing or empty"),
    ]
    assert volumes("storage-group", volume(), volume(nsgroup="g"), volume(nsgroup="a/b")) == [
        ("storage[2].nsgroup", f"'a/b' is not {GroupName.WHAT}")
    ]


@pytest.mark.parametrize(
    ("owner", "group"),
    [("", ""), ("", "none"), ("", "g"), ("g", "g"), ("none", ""), ("none", "none")],
)
def test_who_may_mount_a_volume(owner: str, group: str) -> None:
    item = volume(nsgroup=owner)
    assert breaches("mount-group", target(storage=(mount(),), nsgroup=group), storage=(item,)) == []


@pytest.mark.parametrize(
    ("owner", "group"), [("g", ""), ("g", "none"), ("g", "h"), ("g", "G"), ("none", "g")]
)
def test_a_volume_of_another_group(owner: str, group: str) -> None:
    targets = (target(), target("b", storage=(mount("/x", "x"), mount()), nsgroup=group))
    storage = (volume("x"), volume(nsgroup=owner))
    message = f"'data' is a volume of nsgroup {owner!r}, not of {group!r}"
    assert breaches("mount-group", *targets, storage=storage) == [
        ("targets[1].storage[1].label", message)
    ]
    # What an earlier manifest brought is judged when they are merged.
    assert breaches("mount-group", *targets, complete=False) == []


@pytest.mark.parametrize(
    "label",
    [
        "esp",
        "ESP",
        "machine-config",
        "machine-data",
        "machine-log",
        "machine-mirror",
        "machine-scratch",
        "Machine-Store",
        "pool",
        "Pool",
    ],
)
def test_the_machines_own_labels_are_taken(label: str) -> None:
    assert volumes("storage-label-free", volume("a"), volume(label)) == [
        ("storage[1].label", f"{label!r} is reserved for the machine's own partitions")
    ]


@pytest.mark.parametrize(
    "label", ["snapshot1", "pvmove0", "a_tdata", "a_tmeta", "x_rimage_0", "a_pmspare", "b_mlog"]
)
def test_labels_that_lvm_keeps_for_itself_are_taken(label: str) -> None:
    """It would make the volume under its first name, and never give it its last."""
    assert volumes("storage-label-free", volume("a"), volume(label)) == [
        ("storage[1].label", f"{label!r} is a name that LVM keeps for its own volumes")
    ]
    assert volumes("storage-label-free", volume("my-snapshot"), volume("tdata")) == []


def test_no_label_twice_in_any_case() -> None:
    assert volumes("storage-label-once", volume("a"), volume("b"), volume("A"), volume("a")) == [
        ("storage[2].label", "'A' is the label of storage[0] already"),
        ("storage[3].label", "'a' is the label of storage[0] already"),
    ]
    assert volumes("storage-label-once", volume(""), volume("")) == []


def test_how_large_a_volume_can_be() -> None:
    assert volumes("storage-size", volume(size=1), volume(size=1 << 34)) == []
    for bad in (0, -1, (1 << 34) + 1):
        assert volumes("storage-size", volume(), volume(size=bad)) == [
            ("storage[1].size", f"{bad} MiB is not between 1 MiB and 16 PiB")
        ]


@pytest.mark.parametrize("kind", ["hostfs", "fs-only"])
def test_only_a_container_mounts_volumes(kind: ServiceType) -> None:
    assert mounts("mount-kind", mount(), service_type=kind) == [
        ("targets[1].storage", f"a {kind} target mounts no storage")
    ]
    assert mounts("mount-kind", service_type=kind) == []
    assert mounts("mount-kind", mount()) == []


def test_a_mount_names_a_label() -> None:
    assert mounts("mount-label", mount(), mount("/b", "a/b"), mount("/c", "")) == [
        ("targets[1].storage[1].label", f"'a/b' is not {Label.WHAT}"),
        ("targets[1].storage[2].label", "is missing or empty"),
    ]


def test_a_complete_manifest_has_the_volumes_it_mounts() -> None:
    targets = target("b", storage=(mount(), mount("/b", "other")))
    expected = [("targets[0].storage[1].label", "'other' is not the label of a storage item")]
    assert breaches("mount-known", targets, storage=(volume(),)) == expected
    assert breaches("mount-known", targets, storage=(volume(),), complete=False) == []
    assert breaches("mount-known", targets, storage=(volume(), volume("other"))) == []


@pytest.mark.parametrize(
    ("dest", "message"),
    [
        ("/a", ""),
        ("/a/b.c-d_e", ""),
        ("/" + "a" * 254, ""),
        ("", "is missing or empty"),
        ("a", "'a' is not an absolute path"),
        ("/" + "a" * 255, "is too long or holds white space or odd characters"),
        ("/a b", "'/a b' is too long or holds white space or odd characters"),
        ("/a\tb", "is too long or holds white space or odd characters"),
        ("/é", "'/é' is too long or holds white space or odd characters"),
        ("/", "'/' is not the plain path of a folder below /"),
        ("//a", "'//a' is not the plain path of a folder below /"),
        ("/a/", "'/a/' is not the plain path of a folder below /"),
        ("/a/../b", "'/a/../b' is not the plain path of a folder below /"),
        ("/./a", "'/./a' is not the plain path of a folder below /"),
    ],
)
def test_where_a_volume_can_be_seen(dest: str, message: str) -> None:
    found = mounts("mount-dest", mount(), mount(dest))
    assert [path for path, _ in found] == (["targets[1].storage[1].dest"] if message else [])
    assert all(text.endswith(message) for _, text in found)
    assert all(len(text) < 150 for _, text in found)


@pytest.mark.parametrize("folder", ["/proc", "/sys", "/dev"])
def test_no_volume_hides_what_the_kernel_shows(folder: str) -> None:
    for dest in (folder, f"{folder}/x"):
        assert mounts("mount-kernel", mount(), mount(dest)) == [
            (
                "targets[1].storage[1].dest",
                f"{dest!r} is in {folder}, which belongs to the kernel",
            )
        ]
    assert mounts("mount-kernel", mount(f"{folder}x"), mount(f"/a{folder}")) == []


def test_a_target_has_one_volume_at_one_path() -> None:
    assert mounts("mount-once", mount("/a"), mount("/b"), mount("/a")) == [
        ("targets[1].storage[2].dest", "'/a' is taken by targets[1].storage[0] already")
    ]
    both = [target(name, storage=(mount("/a"),)) for name in "ab"]
    assert breaches("mount-once", *both) == []
    assert mounts("mount-once", mount(""), mount("")) == []


# -- inside of an image

WHOLE = {"/proc": "", "/sys": "", "/dev": "", "/tmp": "", "/run": "", "/var/tmp": "", "/data": ""}


def folders(*dests: str, **problems: str) -> list[str]:
    """Return what is said of an image that has all but ``problems``."""
    named = {f"/{name.replace('_', '/')}": problem for name, problem in problems.items()}
    known = WHOLE | {path: f"{path} {problem}" for path, problem in named.items()}

    def problem(path: str) -> str:
        return known.get(path, f"{path} does not exist")

    tree = storage.Tree(problem, tuple(mount(dest) for dest in dests))
    found = list(rule("image-folders").breaches(tree))
    assert all(path == "" for path, _ in found)
    return [message for _, message in found]


def test_an_image_with_all_its_folders() -> None:
    assert folders() == []
    assert folders("/data") == []


@pytest.mark.parametrize("path", ["proc", "sys", "dev"])
@pytest.mark.parametrize("problem", ["does not exist", "is a symbolic link", "is not a folder"])
def test_what_is_mounted_in_every_container_needs_a_folder(path: str, problem: str) -> None:
    message = f"nothing can be mounted at /{path}: /{path} {problem}"
    assert folders(**{path: problem}) == [message]


@pytest.mark.parametrize("path", ["tmp", "run", "var_tmp"])
def test_what_is_writable_and_forgotten_may_be_absent_but_not_a_link(path: str) -> None:
    name = path.replace("_", "/")
    assert folders(**{path: "does not exist"}) == []
    assert folders(**{path: "is a symbolic link"}) == [
        f"nothing can be mounted at /{name}: /{name} is a symbolic link"
    ]


def test_a_volume_needs_a_folder_except_in_what_is_writable() -> None:
    assert folders("/data", "/other") == ["nothing can be mounted at /other: /other does not exist"]
    assert folders("/run/x", "/tmp/y", "/var/tmp/z") == []
    assert folders("/run/x", run="does not exist") == [
        "nothing can be mounted at /run/x: /run/x does not exist"
    ]
    assert folders("/running") == ["nothing can be mounted at /running: /running does not exist"]


def test_the_error_says_which_image_and_what_to_do() -> None:
    tree = storage.Tree(lambda path: f"{path} does not exist", ())
    with pytest.raises(ArchiveError) as caught:
        storage.FOLDERS.require(tree, "image x")
    assert caught.value.message == "image x: nothing can be mounted at /proc: /proc does not exist"
    assert caught.value.hint == "the image must have a real folder there"
