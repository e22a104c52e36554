"""How registries are reached: the one way for every command.

Owns what a user has said of it, by options and by his environment: credentials, certificates,
proxies. Nothing is read before a registry asks for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from machineos.oci.registry.auth import Credentials, default_auth_paths
from machineos.oci.registry.certificates import Certificates, certificates_for, default_folders
from machineos.oci.registry.client import HttpRegistry
from machineos.oci.registry.proxy import DIRECT, Proxies

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from machineos.core.clock import Clock


@dataclass(frozen=True, slots=True)
class Access:
    """``folders`` are those with certificates for single registries, ``ca_file`` is for all."""

    plain_http: bool = False
    credentials: Credentials | None = None
    ca_file: Path | None = None
    folders: tuple[Path, ...] = ()
    proxies: Proxies = DIRECT

    @classmethod
    def of_user(
        cls,
        environ: Mapping[str, str],
        *,
        plain_http: bool = False,
        ca_file: Path | None = None,
        auth_file: Path | None = None,
    ) -> Access:
        """Return how the user with this environment reaches registries.

        ``auth_file`` has his credentials, instead of the places where podman, skopeo and Docker
        keep them; helpers get all of ``environ``.
        """
        paths = default_auth_paths(environ) if auth_file is None else (auth_file,)
        return cls(
            plain_http=plain_http,
            credentials=Credentials(paths, environ),
            ca_file=ca_file,
            folders=default_folders(environ),
            proxies=Proxies.of_environment(environ),
        )

    def registry(self, host: str, *, clock: Clock | None = None) -> HttpRegistry:
        """Return the registry ``host``, with nothing sent yet.

        Raises: DocumentError (no name of a host, no certificate), MissingError.
        """
        return HttpRegistry(
            host,
            plain_http=self.plain_http,
            credentials=self.credentials,
            certificates=certificates_for(host, self.folders, self.ca_file),
            proxies=self.proxies,
            clock=clock,
        )

    @property
    def certificates(self) -> Certificates:
        """The certificates for servers that are no registries."""
        return Certificates(() if self.ca_file is None else (self.ca_file,))
