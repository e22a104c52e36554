"""Every error that machineOS raises on purpose.

    MachineOSError                  exit code 1
    +-- OrderError                      a plan has a phase before what it needs: our own defect
    +-- SeveralError                    several things failed: exit code of the first
    +-- UsageError                  2   the command line contradicts itself
    +-- DocumentError               3   a document has faults; carries all of them
    +-- VerificationError           4   something is not what it claims to be
    |   +-- DigestError                 bytes do not have the digest or size they should
    |   +-- SignatureError              a signature or a certificate chain does not verify
    |   +-- ArchiveError                an image or archive holds a member that is not allowed
    |   +-- PolicyError                 validly signed, but not for here: other product, too old
    +-- MissingError                5   a named object does not exist
    +-- ConflictError               6   an object exists already, or is in use
    +-- TransferError               7   a registry or the network failed
    |   +-- StalledError                no progress within the time allowed
    |   +-- AuthError                   the registry refused the credentials
    +-- ToolError                   8   a program failed
    |   +-- MissingToolError            a program is not installed
    |   +-- ToolTimeoutError            a program did not end in time
    +-- MachineError                9   a virtual machine or its TPM is not in the needed state
    |   +-- TpmError                    a TPM refused a command or answered nonsense
    +-- SpaceError                 10   not enough room
    +-- BootError                  11   the appliance cannot go on booting

A message says what failed and on which object; ``hint`` says what to do next. Only ``cli`` turns an
error into text and an exit code. 130 is the exit code after Ctrl-C.

Invariant: no error tells a password that stood in a URL, whoever wrote the URL.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

__all__ = [
    "ArchiveError",
    "AuthError",
    "BootError",
    "ConflictError",
    "DigestError",
    "DocumentError",
    "Fault",
    "MachineError",
    "MachineOSError",
    "MissingError",
    "MissingToolError",
    "OrderError",
    "PolicyError",
    "SeveralError",
    "SignatureError",
    "SpaceError",
    "StalledError",
    "ToolError",
    "ToolTimeoutError",
    "TpmError",
    "TransferError",
    "UsageError",
    "VerificationError",
]
_GAP = re.compile(r"([\s'\"]+)")
_DIGEST = re.compile(r"@(?:sha\d+|md5):")
_PORT = re.compile(r"\d{1,5}(?:\W|$)")


def without_userinfo(text: str) -> str:
    """Return ``text`` with three dots for the user names and passwords that stand in its URLs (RFC
    3986, section 3.2.1). It takes time in proportion to its length, whoever wrote it."""
    if "://" not in text or "@" not in text:
        return text
    return "".join(_hidden(word) for word in _GAP.split(text))


def _hidden(word: str) -> str:
    """Return a word without what stands between ``://`` and ``@``."""
    first, *rest = word.split("://")
    shown = [first]
    for part in rest:
        end = _userinfo_end(part)
        shown.append(f"...{part[end:]}" if end else part)
    return "://".join(shown)


def _userinfo_end(part: str) -> int:
    """Return where the ``@`` behind a user is in what follows ``://``, 0 where there is none.

    The ``@`` before a digest is another. A slash ends the host, but for a password that has one and
    should have been quoted: what looks like a port and is no number is one.
    """
    host, slash, _ = part.partition("/")
    name, colon, port = host.partition(":")
    whole = bool(slash) and bool(colon) and "@" not in name and _PORT.match(port) is None
    found = [match.start() for match in re.finditer("@", part if whole else host)]
    digests = {match.start() for match in _DIGEST.finditer(part)}
    return max((at for at in found if at not in digests), default=0)


class MachineOSError(Exception):
    """Root of the tree: ``message`` says what failed, ``hint`` what to do next.

    ``rule`` is the name of the rule that was broken (``document.rules``), empty for other failures.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "", rule: str = "") -> None:
        self.message = without_userinfo(message)
        super().__init__(self.message)
        self.hint = without_userinfo(hint)
        self.rule = rule

    @property
    def told(self) -> str:
        """Message and hint, for a place that has one line for both."""
        return f"{self.message}; {self.hint}" if self.hint else self.message

    def about(self, what: str) -> Self:
        """Return the same error with a message that begins with ``what``.

        Its class, hint, rule and all else that it carries stay: who adds on which object it was
        must not lose what it is.
        """
        message = without_userinfo(f"{what}: {self.message}")
        told = type(self).__new__(type(self), message)
        told.__dict__.update(self.__dict__)
        told.message = message
        return told


class OrderError(MachineOSError):
    """A plan has a phase before what it needs: a defect of ours, found before it acts."""


class SeveralError(MachineOSError):
    """Several things failed, each by itself; ``errors`` has them in their order."""

    def __init__(self, errors: Sequence[MachineOSError]) -> None:
        self.errors = tuple(errors)
        told = "".join(f"\n  {error.message}" for error in self.errors)
        hints = dict.fromkeys(error.hint for error in self.errors if error.hint)
        super().__init__(f"{len(self.errors)} things are wrong{told}", hint="; ".join(hints))
        self.exit_code = self.errors[0].exit_code  # type: ignore[misc] # that of the class is 1


class UsageError(MachineOSError):
    """The command line contradicts itself."""

    exit_code = 2


class Fault:
    """One fault of a document: where (``path`` and 1-based ``line``, 0 if unknown) and what.

    ``rule`` names the rule that was broken, empty when the document could not even be read.
    """

    __slots__ = ("line", "message", "path", "rule")

    def __init__(self, path: str, line: int, message: str, rule: str = "") -> None:
        self.path = path
        self.line = line
        self.message = without_userinfo(message)
        self.rule = rule

    def __repr__(self) -> str:
        return f"Fault({self.path!r}, {self.line}, {self.message!r})"

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line else ""
        return f"{where}{self.path or 'document'}: {self.message}"


class DocumentError(MachineOSError):
    """A document cannot be used; ``faults`` holds every fault that was found, in document order."""

    exit_code = 3

    def __init__(self, name: str, faults: Sequence[Fault], *, hint: str = "") -> None:
        self.name = without_userinfo(name)
        self.faults = tuple(faults)
        lines = "\n".join(f"  {fault}" for fault in self.faults)
        count = len(self.faults)
        text = f"{count} fault{'s' if count != 1 else ''}\n{lines}"
        if count == 1 and not self.faults[0].path and not self.faults[0].line:
            text = self.faults[0].message  # the document as a whole: one line says it better
        super().__init__(f"{name}: {text}", hint=hint)


class VerificationError(MachineOSError):
    """Something is not what it claims to be."""

    exit_code = 4


class DigestError(VerificationError):
    """Bytes do not have the digest or the size that was promised."""


class SignatureError(VerificationError):
    """A signature or a certificate chain does not verify."""


class ArchiveError(VerificationError):
    """An image or archive holds a member that is not allowed."""


class PolicyError(VerificationError):
    """Validly signed, but not for here: another product, another machine, too old."""


class MissingError(MachineOSError):
    """A named object does not exist."""

    exit_code = 5


class ConflictError(MachineOSError):
    """An object exists already, or is in use."""

    exit_code = 6


class TransferError(MachineOSError):
    """A registry or the network failed; ``status`` is the HTTP status, 0 if there was none."""

    exit_code = 7

    def __init__(self, message: str, *, hint: str = "", status: int = 0) -> None:
        super().__init__(message, hint=hint)
        self.status = status


class StalledError(TransferError):
    """No progress within the time allowed."""


class AuthError(TransferError):
    """The registry refused the credentials."""


class ToolError(MachineOSError):
    """A program failed; the end of what it wrote to standard error is in the message."""

    exit_code = 8


class MissingToolError(ToolError):
    """A program is not installed."""


class ToolTimeoutError(ToolError):
    """A program did not end in time."""


class MachineError(MachineOSError):
    """A virtual machine or its TPM is not in the state that was needed."""

    exit_code = 9


class TpmError(MachineError):
    """A TPM refused a command; ``code`` is its return code, 0 when it gave no proper answer."""

    def __init__(self, message: str, *, hint: str = "", code: int = 0) -> None:
        super().__init__(message, hint=hint)
        self.code = code


class SpaceError(MachineOSError):
    """There is not enough room for what was asked."""

    exit_code = 10


class BootError(MachineOSError):
    """The appliance cannot go on booting; the message is the one line for the console."""

    exit_code = 11
