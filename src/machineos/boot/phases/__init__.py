"""The phases of the boot: one file each, found by ``boot.plan``. A boot step is added here."""
