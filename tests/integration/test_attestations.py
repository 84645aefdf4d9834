"""`--provenance` and `--sbom`: the tag names an index with statements about the pushed image."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.integration.conftest import docker, images_of, own_name, second_engine
from tests.integration.nightly import INDEX, Nightly, standing
from tests.integration.registries import Registry, an_open_registry
from tests.integration.seeds import Seeds, published_once
from tests.integration.test_faults import stand_in
from tests.integration.test_publish import NO_ENGINE

pytestmark = pytest.mark.integration

__all__ = ["an_open_registry", "published_once"]

CELL = ("--only", "python=3.13")
TAG = "3.13-slim"
SCANNER = r"""#!/bin/sh
# As docs/attestations/sbom-protocol.md of BuildKit has it.
set -eu
cd "$BUILDKIT_SCAN_SOURCE"/opt/uv/venv/lib/python*/site-packages
version=$(cat idna-*.dist-info/METADATA | sed -n 's/^Version: //p')
cat > "$BUILDKIT_SCAN_DESTINATION/sbom.spdx.json" << EOF
{"_type": "https://in-toto.io/Statement/v0.1", "predicateType": "https://spdx.dev/Document",
 "predicate": {"SPDXID": "SPDXRef-DOCUMENT", "spdxVersion": "SPDX-2.3",
 "packages": [{"SPDXID": "SPDXRef-idna", "name": "idna", "versionInfo": "$version"}]}}
EOF
"""


@dataclass(frozen=True, kw_only=True)
class Attested:
    """The content of a tag in a registry: the index, the image's manifest, and the statements by their type."""

    index: Mapping[str, Any]
    image: Mapping[str, Any]
    statements: Mapping[str, Mapping[str, Any]]

    @property
    def digest(self) -> str:
        """The image's own digest."""
        return str(self.index["manifests"][0]["digest"])


@pytest.fixture
def nightly(open_registry: Registry, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Nightly]:
    """The project with its own repository; its images are removed from the engine afterwards."""
    name = own_name(request)
    made = Nightly(folder=tmp_path, repository=f"{open_registry.host}/{name}", env={})
    made.lock()
    made.matrix()
    yield made
    for tag in images_of(made.repository):
        docker("image", "rm", "--force", f"{made.repository}:{tag}")


def fetched(nightly: Nightly, kind: str, name: str) -> bytes:
    """A blob or manifest, whose bytes match its digest."""
    host, _, path = nightly.repository.partition("/")
    accept = {"Accept": f"{INDEX}, application/vnd.oci.image.manifest.v1+json"}
    answer = requests.get(f"http://{host}/v2/{path}/{kind}/{name}", headers=accept, timeout=30)
    answer.raise_for_status()
    if name.startswith("sha256:"):
        assert name == f"sha256:{hashlib.sha256(answer.content).hexdigest()}"
    return answer.content


def attested(nightly: Nightly, tag: str = "3.13-slim") -> Attested:
    """Fetch everything without builder; check the size in every descriptor."""
    index = json.loads(fetched(nightly, "manifests", tag))
    assert index["mediaType"] == INDEX
    image, said = index["manifests"]
    manifests = []
    for entry in (image, said):
        content = fetched(nightly, "manifests", entry["digest"])
        assert len(content) == entry["size"]
        manifests.append(json.loads(content))
    assert said["annotations"]["vnd.docker.reference.digest"] == image["digest"]
    config = json.loads(fetched(nightly, "blobs", manifests[1]["config"]["digest"]))
    assert config["rootfs"]["diff_ids"] == [layer["digest"] for layer in manifests[1]["layers"]]
    statements = {}
    for layer in manifests[1]["layers"]:
        content = fetched(nightly, "blobs", layer["digest"])
        assert len(content) == layer["size"]
        statement = json.loads(content)
        assert statement["predicateType"] == layer["annotations"]["in-toto.io/predicate-type"]
        statements[statement["predicateType"]] = statement
    return Attested(index=index, image=manifests[0], statements=statements)


def provenance(found: Attested) -> Mapping[str, Any]:
    """The only statement about how the image was built."""
    (statement,) = [each for kind, each in found.statements.items() if "/provenance/" in kind]
    return statement


def subjects(statement: Mapping[str, Any]) -> set[str]:
    """The digests that a statement is about."""
    return {f"sha256:{subject['digest']['sha256']}" for subject in statement["subject"]}


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_provenance_is_about_the_pushed_image(nightly: Nightly, compression: str) -> None:
    """Broken: a provenance is about an image that nobody can pull, or an attested image cannot be pulled."""
    nightly.matrix(extra=f'compression = "{compression}"')
    # A cell of its own: BuildKit does not always tell the layers of steps that another build runs at the same time.
    matrix = nightly.folder / "matrix.toml"
    base = f"told-{compression}"
    matrix.write_text(matrix.read_text().replace('"slim"', f'"{base}"').replace("[bases.slim]", f"[bases.{base}]"))
    tag = f"3.13-{base}"
    assert nightly.outcomes(*CELL, "--provenance", "max") == {tag: "pushed"}
    found = attested(nightly, tag)
    statement = provenance(found)
    assert subjects(statement) == {found.digest}
    layers = {layer["digest"]: layer for layer in found.image["layers"]}
    assert all(layer["mediaType"].endswith(compression) for layer in layers.values())
    told = statement["predicate"]["metadata"]["https://mobyproject.org/buildkit@v1#metadata"]["layers"]
    named = {layer["digest"]: layer for step in told.values() for stack in step for layer in stack}
    assert set(layers) <= set(named)
    assert all(named[digest] == layer for digest, layer in layers.items())
    image = f"{nightly.repository}:{tag}"
    with second_engine(megabytes=2000) as address:
        docker("--host", address, "pull", "--quiet", image)
        done = nightly.builder("verify", image, env={"DOCKER_HOST": address})
    assert done.returncode == 0, done.stdout + done.stderr


def test_nights_with_attestations(nightly: Nightly, open_registry: Registry, seeds: Seeds) -> None:
    """Broken: a command that reads or moves tags handles an index differently from an image."""
    path = nightly.repository.partition("/")[2]
    seeds.attested.publish(nightly, *CELL, tags=[TAG])
    old = nightly.plan()["3.13-slim"]["tags"][0].rpartition(":")[2]
    before = standing(open_registry.host, path)
    again = nightly.builder("build", "--push", *CELL, "--provenance=max", "--sbom", env=NO_ENGINE)
    assert again.returncode == 0, again.stderr
    assert "nothing to do" in again.stderr
    assert standing(open_registry.host, path) == before

    nightly.lock(idna="3.11")
    assert nightly.plan()["3.13-slim"]["reasons"] == ["package idna: 3.10 → 3.11"]
    assert nightly.builder("build", *CELL, "--provenance").returncode == 0
    pushed = nightly.builder("push", *CELL)
    assert pushed.returncode == 0, pushed.stderr
    after = standing(open_registry.host, path)
    found = attested(nightly)
    assert subjects(provenance(found)) == {found.digest}
    difference = json.loads(nightly.builder("diff", old, "3.13-slim", "--json").stdout)
    assert difference["packages"] == ["package idna: 3.10 → 3.11"]
    assert difference["shared_bytes"] > difference["new_bytes"] > 0

    assert nightly.builder("rollback", env=NO_ENGINE).returncode == 0
    assert standing(open_registry.host, path) == before
    assert attested(nightly)
    assert nightly.builder("promote", *CELL, env=NO_ENGINE).returncode == 0
    assert standing(open_registry.host, path) == after


def test_prune_takes_an_index_with_all_that_is_its_own(nightly: Nightly, seeds: Seeds) -> None:
    """Broken: prune leaves half of an index, or deletes what a kept tag needs."""
    host, _, path = nightly.repository.partition("/")
    seeds.attested.publish(nightly, *CELL, tags=[TAG])
    old = nightly.plan()["3.13-slim"]["tags"][0].rpartition(":")[2]
    gone = attested(nightly)
    nightly.lock(idna="3.11")
    seeds.attested.publish(nightly, *CELL, tags=[TAG])
    kept = attested(nightly)
    # Somebody names the old image's manifest, past its index, by a tag of their own.
    put = {"Content-Type": "application/vnd.oci.image.manifest.v1+json"}
    content = fetched(nightly, "manifests", gone.digest)
    requests.put(f"http://{host}/v2/{path}/manifests/kept", data=content, headers=put, timeout=30).raise_for_status()
    done = nightly.builder("prune", "--hours", "0", *CELL, "--keep", "0", "--delete")
    assert (done.returncode, done.stdout.split()) == (0, [f"{nightly.repository}:{old}"]), done.stderr
    assert standing(host, path, [old, "kept"]) == {old: None, "kept": gone.digest}
    assert attested(nightly) == kept
    said = gone.index["manifests"][1]["digest"]
    asked = requests.get(
        f"http://{host}/v2/{path}/manifests/{said}", headers={"Accept": put["Content-Type"]}, timeout=30
    )
    assert asked.status_code == 404


def test_prune_keeps_what_a_kept_index_refers_to(nightly: Nightly, seeds: Seeds) -> None:
    """Broken: another tool's index of builder's images names manifests that prune deleted."""
    host, _, path = nightly.repository.partition("/")
    seeds.publish(nightly, *CELL, tags=[TAG])
    old = nightly.plan()["3.13-slim"]["tags"][0].rpartition(":")[2]
    content = fetched(nightly, "manifests", old)
    digest = str(standing(host, path, [old])[old])
    entry = {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": len(content)}
    index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]})
    url = f"http://{host}/v2/{path}/manifests/theirs"
    requests.put(url, data=index, headers={"Content-Type": INDEX}, timeout=30).raise_for_status()
    nightly.lock(idna="3.11")
    seeds.publish(nightly, *CELL, tags=[TAG])
    assert nightly.builder("prune", "--hours", "0", *CELL, "--keep", "0", "--delete").stdout == ""
    assert fetched(nightly, "manifests", digest) == content


@pytest.fixture
def scanner(open_registry: Registry, tmp_path: Path) -> str:
    """A registry path with an SBOM generator in place of Docker's own; it follows BuildKit's protocol."""
    folder, name = tmp_path / "scanner", f"{open_registry.host}/scanners/buildkit-syft-scanner:stable-1"
    folder.mkdir()
    (folder / "scan").write_text(SCANNER)
    (folder / "scan").chmod(0o755)
    base = stand_in("python:3.13-slim-bookworm")
    (folder / "Dockerfile").write_text(f'FROM {base}\nCOPY scan /scan\nENTRYPOINT ["/scan"]\n')
    argv = ["docker", "build", "--quiet", "--provenance=false", "--tag", name, str(folder)]
    subprocess.run(argv, check=True, capture_output=True)
    docker("push", "--quiet", name)
    docker("image", "rm", "--force", name)
    return f"{open_registry.host}/scanners"


def test_sbom(nightly: Nightly, scanner: str) -> None:
    """Broken: an SBOM is not about the pushed image, or its generator is fetched without the mirrors."""
    nightly.outcomes(*CELL, "--sbom", "--provenance", "--mirror", f"docker.io/docker={scanner}")
    found = attested(nightly)
    assert len(found.statements) == 2
    statement = found.statements["https://spdx.dev/Document"]
    assert subjects(statement) == subjects(provenance(found)) == {found.digest}
    (package,) = statement["predicate"]["packages"]
    assert (package["name"], package["versionInfo"]) == ("idna", "3.10")


def test_sbom_without_its_generator(nightly: Nightly) -> None:
    """Broken: an image is published without the requested SBOM, or the error does not name the generator."""
    done = nightly.builder("build", "--push", *CELL, "--sbom", "--mirror", "docker.io/docker=localhost:1")
    assert done.returncode == 1
    assert "localhost:1/buildkit-syft-scanner:stable-1" in done.stderr
    host, _, path = nightly.repository.partition("/")
    assert set(standing(host, path).values()) == {None}


def test_engine_that_keeps_no_attestations(nightly: Nightly) -> None:
    """Broken: all cells are built before builder reports that the engine cannot store attestations."""
    with second_engine(megabytes=500, containerd=False) as address:
        done = nightly.builder("build", *CELL, "--provenance", "--log-dir", "logs", env={"DOCKER_HOST": address})
    assert (done.returncode, done.stdout) == (3, "")
    assert "containerd-snapshotter" in done.stderr
    assert not (nightly.folder / "logs").exists()


def test_password_of_a_proxy_is_not_told(nightly: Nightly, tmp_path: Path) -> None:
    """Broken: a provenance with the values of build arguments publishes a proxy's password."""
    variable = {"FTP_PROXY": "http://jane:open-sesame@proxy.invalid:1"}
    config = tmp_path / "docker" / "config.json"
    config.parent.mkdir()
    config.write_text(json.dumps({"proxies": {"default": {"ftpProxy": variable["FTP_PROXY"]}}}))
    for env, said in ((variable, "FTP_PROXY"), ({"DOCKER_CONFIG": str(config.parent)}, "proxies.default.ftpProxy")):
        done = nightly.builder("build", *CELL, "--provenance=max", env={**NO_ENGINE, **env})
        assert (done.returncode, done.stdout) == (2, "")
        assert said in done.stderr
        assert "open-sesame" not in done.stderr
