"""Which subordinate ids a caller has, and what is said where there are none."""

from __future__ import annotations

import errno

import pytest

from machineos.errors import UsageError
from machineos.host.pack import subids
from machineos.host.pack.container import ALONE, ENTERED, Ids

WHOLE = "         0          0 4294967295\n"
ONE = "one:100000:65536\n"


def caller(
    uid: int = 1000,
    name: str = "one",
    *,
    subuid: str = ONE,
    subgid: str = ONE,
    uid_map: str = WHOLE,
) -> subids.Caller:
    return subids.Caller(uid, 100, name, subuid, subgid, uid_map)


def test_an_ordinary_user_enters_what_the_files_give() -> None:
    who = caller(subgid="two:1:65536\none:300000:70000\n")
    assert subids.ids_of(who, "x") == Ids(ENTERED, ENTERED, 65536, 100000, (100000, 300000))


@pytest.mark.parametrize(
    "text", ["1000:200000:65536\n", "one:1:10\none:200000:65536", "\n#\n" + ONE]
)
def test_the_files_may_name_a_number_and_have_other_lines(text: str) -> None:
    found = subids.ids_of(caller(subuid=text), "x")
    assert found.base in {100000, 200000}


def test_who_has_entered_is_known_by_the_map() -> None:
    inside = f"  1000  1000  1\n {ENTERED}  100000  70000\n"
    assert subids.ids_of(caller(uid_map=inside), "x") == Ids(ENTERED, ENTERED, 70000, 100000)
    swapped = "".join(reversed(inside.splitlines(keepends=True)))
    assert subids.ids_of(caller(uid_map=swapped), "x").enter is None
    assert subids.ids_of(caller(1001, uid_map=inside), "x").enter is not None


def test_root_has_a_range_that_systemd_keeps_for_containers() -> None:
    found = subids.ids_of(caller(0, "root"), "x")
    assert found == Ids(1 << 30, 1 << 30, 805306368, 1 << 30)
    assert 524288 <= found.uid < found.uid + found.count <= 1879048192
    given = subids.ids_of(caller(0, "root", subuid="root:5000000:70000", subgid=""), "x")
    assert given == Ids(5000000, 1 << 30, 70000, 5000000)


def test_root_of_a_small_namespace_is_told_to_give_itself_a_range() -> None:
    with pytest.raises(UsageError, match="x needs 65536 free ids") as caught:
        subids.ids_of(caller(0, "root", uid_map="0 1000 1\n1 100000 65536\n"), "x")
    assert "root:FIRST:65536" in caught.value.hint


@pytest.mark.parametrize("bad", ["", "one:x:65536", "one:1", "one:1:65535", "other:1:65536"])
@pytest.mark.parametrize("file", ["subuid", "subgid"])
def test_without_a_range_it_is_said_which_command_gives_one(bad: str, file: str) -> None:
    others = "two:100000:65536\n"
    texts = {"subuid": ONE + others, "subgid": ONE + others, file: others + bad}
    with pytest.raises(UsageError, match=f"/etc/{file} gives the user one none") as caught:
        subids.ids_of(caller(subuid=texts["subuid"], subgid=texts["subgid"]), "building")
    span = "165536-231071"
    command = f"sudo usermod --add-subuids {span} --add-subgids {span} one"
    assert caught.value.hint == f"{command}; or run it with sudo"


def test_a_user_without_a_name_needs_one_first() -> None:
    with pytest.raises(UsageError, match="gives the user id 7 none") as caught:
        subids.ids_of(caller(7, "", subuid=""), "x")
    assert caught.value.hint.startswith("give the user a name")


def test_looking_takes_no_subordinate_ids() -> None:
    assert subids.ids_to_look(caller(subuid="")) == Ids(1000, 100, 1, 1000, ALONE)
    assert subids.ids_to_look(caller()).count == 65536


@pytest.mark.parametrize(
    ("problem", "switches", "hint"),
    [
        (
            OSError(errno.EPERM, "unshare: Operation not permitted"),
            {"kernel.unprivileged_userns_clone": "0"},
            "sudo sysctl kernel.unprivileged_userns_clone=1",
        ),
        (
            OSError(errno.EPERM, "capset: Operation not permitted"),
            {"kernel.apparmor_restrict_unprivileged_userns": "1"},
            "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        (
            OSError(errno.ENOSPC, "unshare: No space left on device"),
            {"user.max_user_namespaces": "0", "kernel.unprivileged_userns_clone": "1"},
            "sudo sysctl user.max_user_namespaces=15000",
        ),
        (
            PermissionError("newuidmap: newuidmap (package uidmap): No such file or directory"),
            {"user.max_user_namespaces": "100"},
            "install the package uidmap",
        ),
        (OSError(errno.EPERM, "unshare: Operation not permitted"), {}, "run it with sudo"),
    ],
)
def test_a_machine_that_forbids_it_is_named_with_what_allows_it(
    problem: OSError, switches: dict[str, str], hint: str
) -> None:
    error = subids.refused(problem, switches, "building images")
    assert error.message.startswith("building images needs a user namespace: ")
    assert hint in error.hint
