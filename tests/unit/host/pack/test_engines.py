"""What Docker, podman and skopeo are told. Seen to work: Docker 20.10, podman 4.3, skopeo 1.9."""

from __future__ import annotations

from pathlib import Path

import pytest

from machineos.errors import MissingToolError
from machineos.host.pack.engines import choose_program, save_command

OUT = Path("/w/image.tar")


@pytest.mark.parametrize(
    ("program", "name", "argv"),
    [
        ("docker", "web:2", ("docker", "save", "--output", "/w/image.tar", "web:2")),
        (
            "podman",
            "@0123456789ab",
            ("podman", "save", "--quiet", "--format", "docker-archive", "--output",
             "/w/image.tar", "0123456789ab"),
        ),
        (
            "skopeo",
            "localhost/web:2",
            ("skopeo", "copy", "--quiet", "containers-storage:localhost/web:2",
             "docker-archive:/w/image.tar"),
        ),
    ],
)  # fmt: skip
def test_commands(program: str, name: str, argv: tuple[str, ...]) -> None:
    command = save_command(program, name, OUT, {})
    assert command.argv == argv
    assert command.env == ()


def test_of_the_environment_goes_along_what_says_where_images_are() -> None:
    environ = {"DOCKER_HOST": "unix:///x", "HOME": "/h", "SECRET": "s", "LD_PRELOAD": "x"}
    assert dict(save_command("docker", "a", OUT, environ).env) == {
        "DOCKER_HOST": "unix:///x",
        "HOME": "/h",
    }


def test_which_program_is_asked() -> None:
    assert choose_program("docker-daemon", "a", lambda _name: True) == "docker"
    assert choose_program("containers-storage", "a", lambda _name: True) == "podman"
    assert choose_program("containers-storage", "a", lambda name: name == "skopeo") == "skopeo"


def test_a_missing_program_is_named_with_what_to_do() -> None:
    for way, missing in (("docker-daemon", "docker"), ("containers-storage", "podman or skopeo")):
        with pytest.raises(MissingToolError) as caught:
            choose_program(way, "web:2", lambda _name: None)
        assert caught.value.message == f"{way}:web:2: {missing} is not installed"
        assert f"{missing.split()[0]} save -o image.tar web:2" in caught.value.hint
        assert "docker-archive:image.tar" in caught.value.hint
