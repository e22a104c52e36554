"""An installation is killed before each write, and what was not synced is torn in other ways."""

from __future__ import annotations

import pytest

from fakes.machine import FakeMachine
from fakes.persistence import LOSSES, Loss
from unit.install.conftest import authority, machine, published_world, shelf, template
from unit.install.killing import PASTS, killed_at_every_step

__all__ = ["authority", "machine", "published_world", "shelf", "template"]


@pytest.mark.parametrize("loss", LOSSES[3:], ids=lambda loss: f"{loss.name}-{loss.seed}")
@pytest.mark.parametrize("over", PASTS)
def test_killed_at_every_step(machine: FakeMachine, loss: Loss, over: str) -> None:
    killed_at_every_step(machine, loss, over)
