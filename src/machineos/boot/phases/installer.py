"""Leave the configuration key, the key of the volumes' blocks and the host's CA for the installer,
in root's keyring and nowhere else."""

from __future__ import annotations

from machineos.boot.facts import (
    DEPARTURE,
    ENFORCING,
    FRESH,
    HOST_CA,
    INSTALLS,
    KEY,
    KEYS_USED,
    STORAGE_KEY,
    TPM_KIND,
    UNSEALED,
    VOLUME_KEYS,
    Departure,
    Facts,
    Phase,
)
from machineos.boot.steps import ForgetSecret, KeepSecret
from machineos.core.secret import Secret
from machineos.core.steps import Talk, ask
from machineos.document.between.medium import (
    CA_CERTIFICATE,
    CA_KEY,
    CA_SIGNATURE,
    INSTALL_KEY,
    INTEGRITY_KEY,
)
from machineos.state.volumes.sealed import integrity_key


class _Phase(Phase, frozen=True):
    def talk(self, facts: Facts) -> Talk[Facts]:
        ca = facts[HOST_CA]
        yield from ask(KeepSecret(INSTALL_KEY, facts[KEY]))
        blocks = integrity_key(facts[STORAGE_KEY])
        yield from ask(KeepSecret(INTEGRITY_KEY, blocks))
        yield from ask(ForgetSecret(blocks))
        yield from ask(KeepSecret(CA_KEY, ca.private_key))
        yield from ask(KeepSecret(CA_CERTIFICATE, Secret(ca.certificate)))
        yield from ask(KeepSecret(CA_SIGNATURE, Secret(ca.signature)))
        yield from ask(ForgetSecret(ca.private_key))
        arguments = ("--unit=machineos-install.target",)
        departure = Departure((), "handing over to the installer", arguments)
        return Facts().plus(DEPARTURE, departure)


PHASE = _Phase(
    "installer",
    modes=INSTALLS,
    needs=frozenset({KEY, STORAGE_KEY, HOST_CA, UNSEALED, ENFORCING, FRESH, TPM_KIND}),
    gives=frozenset({KEYS_USED, VOLUME_KEYS, DEPARTURE}),
)
