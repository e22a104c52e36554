"""What a bootkit was built for, and what the manifest says that it is for."""

from __future__ import annotations

import msgspec
import pytest

from changed import replace
from fakes.repository import MemoryRepository
from machineos.build.publish.plan import prepare
from machineos.document.model.hardware import HARDWARE_LABEL, Hardware
from machineos.errors import ConflictError
from unit.build.publish.test_plan import image, publishing, wanted


@pytest.mark.parametrize("built", ["", "same", "another"])
def test_a_bootkit_is_for_the_hardware_that_the_manifest_says(
    built: str,
) -> None:
    """One of an older builder does not say what it is for; a manifest need not."""
    images = MemoryRepository("images")
    said = Hardware(kernel="cloud")
    labels = {"": None, "same": said.label, "another": Hardware().label}
    label = labels[built]
    notes = {} if label is None else {HARDWARE_LABEL: label}
    image(images, "bootkit", b"boot files", b"modules", annotations=notes)
    asked = publishing(images, wanted("bootkit", service_type="fs-only"))
    prepare(asked)
    asked = replace(asked, source=msgspec.structs.replace(asked.source, hardware=said))
    if built != "another":
        assert prepare(asked).images[0].target.service_name == "bootkit"
        return
    with pytest.raises(ConflictError, match="was built for other hardware") as caught:
        prepare(asked)
    assert caught.value.hint == (
        "mosb bootkit build --manifest FILE builds it for what the manifest says"
    )
