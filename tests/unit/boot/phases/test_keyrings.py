"""Keys that the machine's owner put beside ours: the boot ends before any of them is of use."""

from __future__ import annotations

import pytest
from cryptography import x509

from fakes.boot import FakeMachine
from fakes.bootparts.kernel import FakeKernel
from machineos.boot.phases.keyrings import PHASE
from machineos.document.between.bootsettings import Mode
from unit.boot.ends import handed_over, refusal
from unit.boot.worlds import UKI_KEY, machine
from vectors.certificates import Recipe, key

RESET = "; reset shim's list (MokList) and the firmware's db to what this product enrolled"


def stranger(name: str = "stranger", identifier: bytes = b"stranger") -> x509.Certificate:
    return Recipe(common_names=(name,), key=key("stranger"), subject_key=identifier).build()


def with_db(held: tuple[str, ...]) -> FakeMachine:
    def change(kernel: FakeKernel) -> None:
        kernel.platform = held

    made = machine()
    made.kernel = change
    return made


@pytest.mark.parametrize("mode", ["run", "install"])
def test_a_key_that_somebody_enrolled(mode: Mode) -> None:
    made = machine(mode)
    made.kernel = lambda kernel: kernel.enrol(stranger())
    assert refusal(made) == (
        "the kernel has 2 keys from the firmware in .machine, not just the UKI certificate in shim:"
        f" 'stranger: {b'stranger'.hex()}'{RESET}"
    )
    calls = [name for name, _ in made.boot().host.calls]
    assert not {"trust_certificate", "enforce_policy", "mount_image", "open_sealed"} & set(calls)


def test_a_key_that_says_it_is_ours_takes_the_place_of_ours_and_vouches_for_nothing() -> None:
    """Same subject, same identifier: one key in the keyring, and it is not the one that issued."""
    made = machine()
    made.kernel = lambda kernel: kernel.enrol(stranger("UKI", UKI_KEY))
    assert refusal(made).startswith(
        "manifest CA: the kernel does not accept this certificate (ENOKEY)"
    )


def test_a_keyring_that_shim_did_not_fill() -> None:
    """What happens when the kernel is told not to trust shim's list: it goes to .platform."""
    made = machine()
    made.firmware = stranger()
    assert "has 1 key from the firmware in .machine" in refusal(made)


@pytest.mark.parametrize("held", [("vendor: 01", "ours: 02"), ("a: 1", "b: 2", "c: 3")])
def test_another_number_of_keys_in_the_db(held: tuple[str, ...]) -> None:
    """dm-verity asks that keyring too: a key of the vendor's would open volumes."""
    reason = refusal(with_db(held))
    assert reason.startswith(f"the kernel has {len(held)} keys from the firmware in .platform, not")
    for one in held:
        assert repr(one) in reason


def test_no_key_at_all_is_secure_boot_switched_off() -> None:
    reason = refusal(with_db(()))
    assert reason.startswith("the kernel has no key from the firmware in .platform, and")
    assert "Secure Boot is off" in reason


def test_what_a_stranger_calls_himself_is_shown_in_one_line_and_not_whole() -> None:
    made = machine()
    name = "x\n\x1b[2J" + "y" * 40
    made.kernel = lambda kernel: kernel.enrol(stranger(name))
    reason = refusal(made)
    assert "\x1b" not in reason
    assert "'x\\n\\x1b[2J" in reason


def test_with_our_keys_alone_it_boots_and_nothing_is_provisioned_by_it() -> None:
    handed_over(machine())
    assert PHASE.modes == {"run", "install"}
