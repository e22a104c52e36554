from __future__ import annotations

from machineos.core.command import Command
from machineos.host.unit import iproute


def test_a_bridge_is_made_once_and_its_addresses_put_in_place() -> None:
    addresses = ("10.0.3.1/24", "fd00::1/64")
    rest = [
        "address replace 10.0.3.1/24 dev mos0",
        "address replace fd00::1/64 dev mos0 nodad",
        "link set mos0 addrgenmode none",
        "link set mos0 up",
    ]
    options = "type bridge stp_state 0 forward_delay 0 mcast_snooping 0 group_fwd_mask 0xfff8"
    new = iproute.bridge_batch("mos0", addresses, exists=False)
    assert new.splitlines() == [
        f"link add mos0 {options}",
        *rest,
    ]
    assert new.endswith("\n")
    assert iproute.bridge_batch("mos0", addresses, exists=True).splitlines() == [
        f"link set mos0 {options}",
        *rest,
    ]
    assert iproute.batch("x") == Command(("ip", "-batch", "-"), 30.0, input=b"x")
