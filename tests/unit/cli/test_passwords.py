"""Wherever a URL may stand, a password in it is shown nowhere: as text, as JSON, with --debug."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from machineos.core.run import run
from machineos.trust.keys.keyset import Keyset
from waiting import PATIENCE

MODULES = {
    "trust": "machineos.cli.developer.trust", "mosb": "machineos.cli.developer.mosb",
    "mosctl": "machineos.cli.operator.mosctl",
}  # fmt: skip
URL = "me:s3cret@127.0.0.1:1/x:1"
LONG = f"me:{'s3cret' * 40}@127.0.0.1:1/x:1"
MANIFEST = """version: 1
product: default
update_type: complete
targets:
  - service_name: web
    source: docker://{url}
    version: 1.0.0
    service_type: container
    nsgroup: none
    network: {{type: none}}
"""
PUBLISH = "mosb manifest publish --skip-bootkit --project k --name a:1 --repo"
RECIPES = {
    "base": "a: {{from: {{type: docker, url: 'docker://{url}'}}}}",
    "base without a scheme": "a: {{from: {{type: docker, url: 'https://{url}'}}}}",
    "import by ftp": "a: {{from: {{type: scratch}}, import: ['ftp://{url}']}}",
    "mirror": "a: {{from: {{type: debian, suite: bookworm, mirror: 'ftp://{url}'}}}}",
    "tar": "a: {{from: {{type: tar, url: 'https://{url}', hash: nope}}}}",
}
LINES = [
    "mosb manifest show --name a:1 --repo {url}",
    "mosb manifest verify --project k --name a:1 --repo https://{url}",
    "mosb manifest show --repo oci:r --name docker://{url}",
    f"{PUBLISH} oci:r m.yaml",
    f"{PUBLISH} {{url}} m.yaml",
    "mosb image convert docker://{url} --layout oci:o --tag t",
    "mosb image convert {url} --layout oci:o --tag t",
    "mosb image convert oci:none:x docker://{url} --layout oci:o --tag t",
    *(f"mosb image build -f {number}.yaml --layout oci:o" for number in range(len(RECIPES))),
    "mosb media build --project k --with oci:docker://{url}",
    "trust launch --project k vm docker://{url}",
    "mosctl install docker://{url}",
    "mosctl install https://{url}",
]


@pytest.mark.parametrize("url", [URL, LONG], ids=["short", "long"])
@pytest.mark.parametrize("line", LINES)
def test_it_is_shown_nowhere(tmp_path: Path, one: Keyset, line: str, url: str) -> None:
    keysets = tmp_path / ".local/share/machine/trust/keys"
    keysets.mkdir(parents=True)
    (keysets / "k").symlink_to(one.root)
    (tmp_path / "m.yaml").write_text(MANIFEST.format(url=url))
    for number, text in enumerate(RECIPES.values()):
        (tmp_path / f"{number}.yaml").write_text(text.format(url=url))
    program, *words = line.format(url=url).split()
    code = f"from {MODULES[program]} import main; main()"
    env = {
        "HOME": str(tmp_path), "PYTHONPATH": ":".join(sys.path),
        "HTTP_PROXY": f"http://{url}", "HTTPS_PROXY": f"http://{url}",
    }  # fmt: skip
    for more in (["--json"], []):
        argv = [sys.executable, "-c", code, "--debug", *words, *more]
        ended = run(argv, env=env, timeout=PATIENCE, check=False, cwd=tmp_path)
        assert ended.status not in {0, 1}, ended.stderr.decode()
        assert b"s3cret" not in ended.stdout + ended.stderr, ended.stderr.decode()
