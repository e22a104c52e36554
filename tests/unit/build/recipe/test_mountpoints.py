from __future__ import annotations

from machineos.build.recipe.mountpoints import mount_points


def test_every_container_needs_some_and_an_image_declares_more() -> None:
    assert dict(mount_points(["/srv/data", "/tmp"])) == {
        ("dev",): None,
        ("etc",): None,
        ("proc",): None,
        ("run",): None,
        ("sys",): None,
        ("tmp",): 0o1777,
        ("var", "tmp"): 0o1777,
        ("srv", "data"): None,
    }


def test_a_name_ends_where_it_would_leave_the_tree() -> None:
    wanted = ["/../escape", "/a/../../b", "/c//d", "/e/./f", "relative/g"]
    parts = [parts for parts, _ in mount_points(wanted)][-len(wanted) :]
    assert parts == [(), ("a",), ("c",), ("e",), ("relative", "g")]
