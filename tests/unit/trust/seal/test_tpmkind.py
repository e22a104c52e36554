"""What kind of TPM it is: only what maker and driver both say, "unknown" for all else."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.swtpm import software_tpm
from machineos.document.between.bootsettings import TpmKind
from machineos.errors import PolicyError
from machineos.host.tpm.wire import Property
from machineos.trust.seal.tpmkind import (
    Kind,
    Maker,
    check_kind,
    describe,
    driver_of,
    kind_of,
    read_maker,
)

KINDS: tuple[Kind, ...] = get_args(Kind)


@pytest.mark.parametrize(
    ("name", "driver", "kind"),
    [
        ("INTC", "tpm_crb", "integrated"),
        ("AMD", "tpm_crb", "integrated"),
        ("QCOM", "tpm_ftpm_tee", "integrated"),
        ("INTC", "tpm_tis", "unknown"),
        ("AMD", "tpm_tis_spi", "unknown"),
        ("AMD", "", "unknown"),
        ("IFX", "tpm_tis", "discrete"),
        ("STM", "tpm_tis_spi", "discrete"),
        ("NTC", "tpm_crb", "discrete"),
        ("IBM", "tpm_crb", "virtual"),
        ("IBM", "tpm_tis", "virtual"),
        ("VMW", "tpm_crb", "virtual"),
        ("MSFT", "tpm_crb", "unknown"),
        ("intc", "tpm_crb", "unknown"),
        ("INTC ", "tpm_crb", "unknown"),
        ("", "tpm_crb", "unknown"),
    ],
)
def test_the_kind(name: str, driver: str, kind: Kind) -> None:
    maker = Maker(name, "model")
    assert kind_of(maker, driver) == kind
    assert f"({kind}: made by " in describe(maker, driver)
    for required in KINDS:
        if required == kind:
            check_kind(maker, driver, required)
        else:
            with pytest.raises(PolicyError, match=f"kind {required}, and the TPM is .*nothing was"):
                check_kind(maker, driver, required)
    check_kind(maker, driver, "")


@given(st.text(max_size=4), st.text(max_size=12))
def test_nobody_knows_a_stranger(name: str, driver: str) -> None:
    """Integrated is what a product may ask for: never by accident."""
    if kind_of(Maker(name, ""), driver) == "integrated":
        assert (name, driver) in {
            (maker, buffer)
            for maker in ("AMD", "INTC", "QCOM")
            for buffer in ("tpm_crb", "tpm_ftpm_tee")
        }


def test_what_a_product_may_ask_for_can_be_told() -> None:
    assert set(get_args(TpmKind)) == {"", *KINDS} - {"unknown"}


@pytest.mark.parametrize(
    ("uevent", "driver"),
    [
        # of a guest with swtpm
        ("DRIVER=tpm_crb\nMODALIAS=acpi:MSFT0101:\n", "tpm_crb"),
        ("MODALIAS=acpi:MSFT0101:\nDRIVER=tpm_tis", "tpm_tis"),
        ("MODALIAS=DRIVER=tpm_crb\n", ""),
        ("", ""),
    ],
)
def test_the_driver_of_a_device(uevent: str, driver: str) -> None:
    assert driver_of(uevent) == driver


class Properties:
    """A TPM that answers with these words of four characters."""

    def __init__(self, *words: bytes) -> None:
        self._words = words

    def properties(self, first: Property, count: int = 1) -> dict[int, int]:
        found = (int.from_bytes(word, "big") for word in self._words[:count])
        return {first + number: value for number, value in enumerate(found)}


@pytest.mark.parametrize(
    ("words", "maker"),
    [
        ((b"INTC", b"Inte", b"l\0\0\0", bytes(4), bytes(4)), Maker("INTC", "Intel")),
        ((b"AMD\0", b"AMD\0", bytes(4), bytes(4), bytes(4)), Maker("AMD", "AMD")),
        ((b"IFX\0", b"SLB9", b"670\0", bytes(4), bytes(4)), Maker("IFX", "SLB9670")),
        ((b"\x1b[2J", b"\xff\n\0x"), Maker("?[2J", "\ufffd?x")),
        ((), Maker("", "")),
    ],
)
def test_the_maker_in_the_words_of_a_tpm(words: tuple[bytes, ...], maker: Maker) -> None:
    assert read_maker(Properties(*words)) == maker  # type: ignore[arg-type]


@pytest.mark.tool("swtpm")
def test_the_maker_of_a_software_tpm(tmp_path: Path) -> None:
    with software_tpm(tmp_path) as chip, chip.open() as tpm:
        maker = read_maker(tpm)
    assert maker.name == "IBM"
    assert "TPM" in maker.model
