"""Where the kernel's security modules take their policies."""

from __future__ import annotations

from pathlib import Path

SECURITYFS = Path("/sys/kernel/security")
