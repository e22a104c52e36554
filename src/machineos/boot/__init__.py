"""The initrd: from the kernel's first process to the hand-over, in named phases (docs/boot).

Import budget: standard library, core, host, trust, manifest, oci without HTTP, cryptography,
msgspec.
"""
