"""Where the TPM keeps what is ours: NV indexes, the storage root key, and when it is complete.

Invariant: a TPM counts as provisioned only when everything is in place, whatever interrupted it.
Shared with the initrd: standard library only.
"""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import TYPE_CHECKING, Final

from machineos.host.tpm.wire import NvAttribute, Permanent, Property
from machineos.trust.measure.tpm_policy import VERSION_INDEX

if TYPE_CHECKING:
    from collections.abc import Mapping

    from machineos.trust.measure.tpm_policy import Phase
    from machineos.trust.seal.chip import Tpm

STORAGE_ROOT = 0x81000001  # TCG's handle for the storage root key
LAYOUT_VERSION = b"00000005"


class Index(IntEnum):
    """The NV indexes."""

    ADMIN_PASSWORD = 0x1500001
    LAYOUT = 0x1500002
    POLICY_VERSION = VERSION_INDEX
    SUDI_CERT = 0x1500021
    SUDI_KEY = 0x1500022
    STORAGE_KEY = 0x1500030
    CONFIGURATION_KEY = 0x1500040


# In which phase of a boot the TPM gives each out; of the floor, lets it be written. What is not
# here is no secret. The admin password is for an image of its own, which has no phases yet.
PHASES: Final[Mapping[Index, Phase]] = {
    Index.ADMIN_PASSWORD: "first",
    Index.CONFIGURATION_KEY: "first",
    Index.STORAGE_KEY: "first",
    Index.SUDI_CERT: "second",
    Index.SUDI_KEY: "second",
    Index.POLICY_VERSION: "second",
}


class State(Enum):
    """What a TPM holds of ours."""

    EMPTY = "not provisioned"
    PARTIAL = "half provisioned"
    PROVISIONED = "provisioned"
    FOREIGN = "provisioned by another version"


def state(tpm: Tpm) -> State:
    """Return what ``tpm`` holds of ours.

    It is provisioned when the layout version is there and no hierarchy is without a password:
    provisioning sets the last password (lockout) as its very last act. Raises: TpmError.
    """
    ours = set(tpm.handles(min(Index))) & {*Index}
    if Index.LAYOUT not in ours:
        return State.PARTIAL if ours else State.EMPTY
    layout = tpm.nv_read_public(Index.LAYOUT)
    if NvAttribute.WRITTEN not in layout.attributes:
        return State.PARTIAL
    if tpm.nv_read(layout) != LAYOUT_VERSION:
        return State.FOREIGN
    passwords = (
        Permanent.OWNER_AUTH_SET | Permanent.ENDORSEMENT_AUTH_SET | Permanent.LOCKOUT_AUTH_SET
    )
    done = passwords in Permanent(tpm.property(Property.PERMANENT)) and ours == {*Index}
    return State.PROVISIONED if done else State.PARTIAL
