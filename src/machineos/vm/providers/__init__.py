"""The providers, one file each: what runs the machines of one ``type`` of machine.yaml.

A new one is a file here, its word in ``machineos.vm.model.Kind``, and its line in ``provider_for``,
without which the type checker does not pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from machineos.errors import DocumentError, MachineError

if TYPE_CHECKING:
    from machineos.core.clock import Clock
    from machineos.vm.model import Kind
    from machineos.vm.provider import Provider
    from machineos.vm.store import MachineStore

DEFAULT: Kind = "kvm"


def provider_for(kind: Kind, store: MachineStore, clock: Clock) -> Provider:
    """Return what runs machines of one type."""
    match kind:
        case "kvm":
            from machineos.vm.providers.qemu import QemuProvider

            return QemuProvider(store, clock)


def provider_of(name: str, store: MachineStore, clock: Clock) -> Provider:
    """Return what runs the machine ``name``.

    One whose definition cannot be read can still be looked at, stopped and deleted: it is taken to
    be of the default type. Raises: MissingError.
    """
    try:
        kind = store.load(name).type
    except (DocumentError, MachineError, OSError):
        kind = DEFAULT
    return provider_for(kind, store, clock)
