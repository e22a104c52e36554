from __future__ import annotations

import pytest
from click.testing import CliRunner

from machineos.cli.operator.mosctl_install import install
from machineos.errors import BootError, DocumentError, UsageError


def error_of(*words: str) -> BaseException | None:
    return CliRunner().invoke(install, words).exception


def test_one_source_and_only_one() -> None:
    assert isinstance(error_of(), UsageError)
    assert isinstance(error_of("registry.example/a:b", "--from-medium"), UsageError)


@pytest.mark.parametrize("source", ["machine/install:1.0.0", "http://registry.example/a:b"])
def test_what_is_no_source(source: str) -> None:
    assert isinstance(error_of(source), DocumentError)


def test_a_machine_that_no_medium_started_is_refused_before_anything_else() -> None:
    error = error_of("registry.example/a:b", "--disk", "none")
    assert isinstance(error, BootError)
    assert error.message.startswith("this machine was not booted from an install medium")
    assert "trust launch" in error.hint


def test_help_says_that_data_is_lost() -> None:
    result = CliRunner().invoke(install, ["--help"])
    assert result.exit_code == 0
    assert "All data on the disk is lost" in " ".join(result.output.split())
