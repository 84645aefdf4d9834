"""No credential, secret or CA is in anything that leaves the machine: canaries everywhere, and a search."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import lzma
import os
import ssl
import subprocess
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest
import trustme
import zstandard
from uv import find_uv_bin

from tests.integration.conftest import docker
from tests.integration.nightly import Nightly
from tests.integration.registries import PASSWORD, USER, Registry, running

pytestmark = pytest.mark.integration

STEM: Final = "kQ7canaryZx4vB"  # all canaries begin like this, so that one search finds any of them
CELL: Final = ("--only", "python=3.13")

# Places for credentials in the project itself; nothing is ever asked at either address.
INDEXES: Final = f"""
[[tool.uv.index]]
name = "private"
url = "https://jane:{STEM}index@index.invalid/simple"
publish-url = "https://jane:{STEM}publish@index.invalid/upload"
explicit = true
"""
BUILD_SYSTEM: Final = f"""
[build-system]
requires = ["hatchling", "tool @ https://jane:{STEM}requires@index.invalid/tool-1-py3-none-any.whl"]
build-backend = "hatchling.build"
"""
CONSTRAINT: Final = f"""
build-constraint-dependencies = ["other @ git+https://jane:{STEM}constraint@index.invalid/other.git"]
"""
# What builds get because the matrix names it.
HANDED_OVER: Final = """\
credentials = { "declared.invalid" = { password = "OUR_LOGIN" } }
ssh = { known-hosts = "OUR_HOSTS", key = "OUR_KEY" }
"""


def canary(place: str) -> str:
    """The secret that is planted in a place."""
    return f"{STEM}{place}"


def encodings(secret: bytes) -> set[bytes]:
    """The secret, and its base64 forms at any offset in a text (`user:password`, a PEM file)."""
    found = {secret}
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + secret)
        found.add(encoded[-(-before * 8 // 6) : (before + len(secret)) * 8 // 6])
    return found


def certificate_needles(pem: bytes) -> set[bytes]:
    """Each whole line of a certificate, its DER, and the signature at the end of the DER."""
    der = ssl.PEM_cert_to_DER_cert(pem.decode())
    lines = {line for line in pem.splitlines() if len(line) == 64 and not line.startswith(b"-")}
    assert len(lines) > 5
    return lines | {der, der[-48:]}


def unpacked(name: str, content: bytes) -> Iterator[tuple[str, bytes]]:
    """The content, and all that is packed in it, at any depth; a tar contains its own files uncompressed."""
    yield name, content
    if content.startswith(b"\x1f\x8b"):
        yield from unpacked(f"{name} (gzip)", gzip.decompress(content))
    elif content.startswith(b"\x28\xb5\x2f\xfd"):
        yield from unpacked(f"{name} (zstd)", zstandard.ZstdDecompressor().stream_reader(io.BytesIO(content)).read())
    elif content.startswith(b"\xfd7zXZ\0"):
        yield from unpacked(f"{name} (xz)", lzma.decompress(content))
    elif content.startswith(b"PK\3\4"):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for member in archive.namelist():
                yield from unpacked(f"{name}!/{member}", archive.read(member))
    elif content[257:262] == b"ustar":
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            for entry in tar:
                file = tar.extractfile(entry) if entry.isreg() else None
                inner = file.read() if file else b""
                if inner.startswith((b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\0", b"PK\3\4")):
                    yield from unpacked(f"{name}!/{entry.name}", inner)


@dataclass(kw_only=True)
class Search:
    """Searches content for needles and markers; skips content that it has searched already."""

    needles: set[bytes]
    markers: Mapping[str, bytes] = field(default_factory=dict)  # what a place must have, or nothing was searched
    leaks: list[str] = field(default_factory=list)
    _known: dict[bytes, frozenset[bytes]] = field(default_factory=dict)
    _missing: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._missing = set(self.markers)

    def look(self, place: str, content: bytes | str) -> None:
        """Search content that leaves the machine."""
        marker = self.markers[place]
        for name, data in unpacked(place, content.encode() if isinstance(content, str) else content):
            digest = hashlib.sha256(data).digest()
            if digest not in self._known:
                everything = self.needles | set(self.markers.values())
                self._known[digest] = frozenset(each for each in everything if each in data)
            found = self._known[digest]
            if marker in found:
                self._missing.discard(place)
            for needle in sorted(found & self.needles):
                at = data.index(needle)
                self.leaks.append(f"{name}: …{data[max(at - 80, 0) : at + 80]!r}…")

    def look_below(self, place: str, folder: Path) -> None:
        """Search the names and contents of all files below a folder."""
        for path in sorted(folder.rglob("*")):
            self.look(place, str(path.relative_to(folder)))
            if path.is_file():
                self.look(place, path.read_bytes())

    def check(self) -> None:
        """Fail if there is a leak, or if a place was not searched."""
        assert not self.leaks, "\n".join(self.leaks)
        assert not self._missing, f"nothing was searched in: {sorted(self._missing)}"


def passwords() -> set[bytes]:
    """The needles for the canaries, and for the only real password."""
    return encodings(STEM.encode()) | encodings(PASSWORD.encode())


def spoken(done: subprocess.CompletedProcess[str], *, code: int = 0) -> str:
    """The output of builder, after it ended as expected."""
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    """A registry with a password and TLS, for one test: everything in it comes from that test."""
    folder = tmp_path / "registry"
    folder.mkdir()
    with running(folder, guarded=True) as guarded:
        yield guarded
        for name in docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}").split():
            if name.startswith(f"{guarded.host}/"):
                docker("image", "rm", "--force", name)


@dataclass(frozen=True, kw_only=True)
class Planted:
    """A project with canaries in its environment and files; `ca` belongs to no server."""

    nightly: Nightly
    ca: bytes


@pytest.fixture
def planted(registry: Registry, tmp_path: Path) -> Planted:
    """The project, with a canary wherever builder, docker or uv would read a secret."""
    environment = registry.environment(tmp_path / "docker")
    ca = trustme.CA(organization_name=canary("ca")).cert_pem.bytes()
    with Path(environment["SSL_CERT_FILE"]).open("ab") as bundle:
        bundle.write(b"\n" + ca)
    _plant_docker_config(tmp_path / "docker" / "config.json")
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine netrc.invalid login jane password {canary('netrc')}\n")
    other = base64.b64encode(f"jane:{canary('auth')}".encode()).decode()
    key = tmp_path / "key"
    key.write_text(f"-----BEGIN OPENSSH PRIVATE KEY-----\n{canary('key') * 4}\n-----END OPENSSH PRIVATE KEY-----\n")
    environment |= {
        "NETRC": str(netrc),
        "OUR_KEY": str(key),
        "OUR_HOSTS": str(netrc),
        "OUR_LOGIN": canary("declared"),
        "CI_REGISTRY": "ci.invalid",
        "CI_REGISTRY_USER": "jane",
        "CI_REGISTRY_PASSWORD": canary("ci"),
        "CI_JOB_TOKEN": canary("job"),
        "CI_REPOSITORY_URL": f"https://jane:{canary('git')}@git.invalid/acme.git",
        "DOCKER_AUTH_CONFIG": json.dumps({"auths": {"auth.invalid": {"auth": other}}}),
        "DEPLOY_TOKEN": canary("token"),
        "SIGNING_SECRET": canary("secret"),
        "UV_INDEX_PRIVATE_USERNAME": "jane",
        "UV_INDEX_PRIVATE_PASSWORD": canary("uv"),
        "FTP_PROXY": f"http://jane:{canary('proxy')}@proxy.invalid:1",  # nothing here speaks FTP
    }
    folder = tmp_path / "project"
    folder.mkdir()
    nightly = Nightly(folder=folder, repository=f"{registry.host}/acme/ci", env=environment)
    nightly.lock()
    nightly.matrix(extra=HANDED_OVER)
    with (folder / "pyproject.toml").open("a") as pyproject:
        pyproject.write(INDEXES)
    return Planted(nightly=nightly, ca=ca)


def _plant_docker_config(path: Path) -> None:
    config = json.loads(path.read_text())
    login = f"jane:{canary('login')}".encode()
    config["auths"]["login.invalid"] = {"auth": base64.b64encode(login).decode()}
    config["proxies"] = {"default": {"ftpProxy": f"http://jane:{canary('config')}@proxy.invalid:1"}}
    path.write_text(json.dumps(config))


def without_login(folder: Path) -> Path:
    """A DOCKER_CONFIG without a login."""
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


def with_helper(folder: Path, registry: Registry) -> dict[str, str]:
    """The variables of a user with a credential helper."""
    folder.mkdir()
    helper = folder / "docker-credential-cage"
    answer = json.dumps({"Username": USER, "Secret": registry.password})
    helper.write_text(f"#!/bin/sh\ncat > /dev/null\necho '{answer}'\n")
    helper.chmod(0o755)
    (folder / "config.json").write_text(json.dumps({"credHelpers": {registry.host: "cage"}}))
    return {"DOCKER_CONFIG": str(folder), "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}


def test_nothing_secret_leaves_the_machine(registry: Registry, planted: Planted, tmp_path: Path) -> None:
    """Broken: a secret of this machine is in the registry, the image, a log or the output."""
    nightly = planted.nightly
    assert registry.ca
    assert registry.data
    search = Search(
        needles=passwords() | certificate_needles(planted.ca) | certificate_needles(registry.ca.read_bytes()),
        markers={
            "registry": b'name = "idna"\nversion = "3.10"',
            "manifest": b"application/vnd.oci.image.manifest.v1+json",
            "saved image": b'name = "idna"\nversion = "3.10"',
            "inspect": b"io.gitlab.prebuilt.inputs",
            "history": b"builder: wheels: idna",
            "stdout": b'"outcome": "pushed"',
            "stderr": b"--build-arg FTP_PROXY ",
            "log": b"=== ",
            "render": b"Rendered by builder",
            "plan": b'"up-to-date"',
            "refusal": b"docker login",
        },
    )
    # --no-cache: neither secrets nor proxies are in the engine's cache keys; only layers made anew can have canaries.
    # -v: that is when builder says most.
    logs = tmp_path / "logs"
    built = nightly.builder("-v", "build", "--push", "--no-cache", "--json", *CELL, "--log-dir", str(logs))
    assert built.returncode == 0, built.stderr
    search.look("stdout", built.stdout)
    search.look("stderr", built.stderr)
    search.look_below("log", logs)
    search.look_below("registry", registry.data)
    (cell,) = json.loads(built.stdout)["cells"]
    search.look("manifest", _blob(registry.data, cell["digest"]))
    image = cell["tags"][1]
    search.look("inspect", docker("image", "inspect", image))
    search.look("history", docker("history", "--no-trunc", image))
    docker("save", "--output", str(tmp_path / "image.tar"), image)
    search.look("saved image", (tmp_path / "image.tar").read_bytes())

    nobody = {"DOCKER_CONFIG": str(without_login(tmp_path / "nobody"))}
    by_variable = {
        **nobody, "CI_REGISTRY": registry.host, "CI_REGISTRY_USER": USER, "CI_REGISTRY_PASSWORD": registry.password,
    }  # fmt: skip
    for login in ({}, by_variable, with_helper(tmp_path / "helper", registry)):
        said = spoken(nightly.builder("-v", "plan", "--json", *CELL, env=login))
        assert '"up-to-date"' in said
        search.look("plan", said)
    wrong = registry.environment(tmp_path / "wrong", password=canary("wrong"))["DOCKER_CONFIG"]
    for login in (nobody, {"DOCKER_CONFIG": wrong}):
        refused = nightly.builder("-v", "build", "--push", "--json", *CELL, "--log-dir", str(logs), env=login)
        search.look("refusal", spoken(refused, code=3))
    search.look("render", spoken(nightly.builder("-v", "render", "-o", str(tmp_path / "contexts"))))
    search.look_below("render", tmp_path / "contexts")
    search.check()


@pytest.mark.parametrize("provenance", ["min", "max"])
def test_attestations_and_cache_say_nothing_secret(
    registry: Registry, planted: Planted, tmp_path: Path, provenance: str
) -> None:
    """Broken: an attestation or the step cache contains a secret of the build."""
    nightly = planted.nightly
    assert registry.ca
    assert registry.data
    nightly.matrix(extra=f'cache = "registry"\n{HANDED_OVER}')
    if provenance == "max":  # which is refused as long as a proxy has a password
        nightly.env = {**nightly.env, "FTP_PROXY": ""}
        config = tmp_path / "docker" / "config.json"
        config.write_text(json.dumps({"auths": json.loads(config.read_text())["auths"]}))
    search = Search(
        needles=passwords() | certificate_needles(planted.ca) | certificate_needles(registry.ca.read_bytes()),
        markers={
            "attestation": b"https://slsa.dev/provenance/",
            "cache": b"application/vnd.buildkit.cacheconfig.v0",
            "layer": b'name = "idna"\nversion = "3.10"',
            "saved image": b"https://slsa.dev/provenance/",
        },
    )
    logs = tmp_path / "logs"
    argv = ("-v", "build", "--push", "--no-cache", "--json", *CELL, "--provenance", provenance, "--log-dir", str(logs))
    built = nightly.builder(*argv)
    assert built.returncode == 0, built.stderr
    search.look_below("layer", registry.data)
    for path in registry.data.rglob("data"):
        if path.is_file() and path.stat().st_size < 1 << 20:  # no layer, then
            search.look("attestation", path.read_bytes())
            search.look("cache", path.read_bytes())
    image = json.loads(built.stdout)["cells"][0]["tags"][1]
    docker("save", "--output", str(tmp_path / "image.tar"), image)
    search.look("saved image", (tmp_path / "image.tar").read_bytes())
    search.check()


def _blob(data: Path, digest: str) -> bytes:
    """The content of a digest in a registry."""
    algorithm, _, hexadecimal = digest.partition(":")
    return (data / "docker/registry/v2/blobs" / algorithm / hexadecimal[:2] / hexadecimal / "data").read_bytes()


def test_failed_build_says_nothing_secret(planted: Planted, tmp_path: Path) -> None:
    """Broken: the log or the error of a failed step contains a secret of the build."""
    nightly = planted.nightly
    with (nightly.folder / "matrix.toml").open("a") as matrix:
        matrix.write('packages = ["no-such-package"]\n')
    search = Search(
        needles=passwords() | certificate_needles(planted.ca),
        markers={"output": b'"build-failed"', "log": b"no-such-package"},
    )
    logs = tmp_path / "logs"
    done = nightly.builder("-v", "build", "--push", "--json", *CELL, "--log-dir", str(logs))
    search.look("output", spoken(done, code=1))
    search.look_below("log", logs)
    search.check()


def test_credentials_in_build_requirements_are_left_out(planted: Planted, tmp_path: Path) -> None:
    """Broken: the password in a build requirement's URL is in the build context, or in a label."""
    nightly = planted.nightly
    pyproject = nightly.folder / "pyproject.toml"
    text = pyproject.read_text().replace("package = false\n", f"package = true{CONSTRAINT}")
    pyproject.write_text(text + BUILD_SYSTEM)
    search = Search(needles=passwords(), markers={"render": b"index.invalid/tool-1-py3-none-any.whl", "plan": b"idna"})
    subprocess.run([find_uv_bin(), "lock", "--quiet"], cwd=nightly.folder, check=True)
    search.look("render", spoken(nightly.builder("-v", "render", "-o", str(tmp_path / "contexts"))))
    search.look_below("render", tmp_path / "contexts")
    search.look("plan", spoken(nightly.builder("-v", "plan", "--json")))
    search.check()


def test_unreachable_index_is_named_without_its_password(planted: Planted) -> None:
    """Broken: the error for an index that does not answer contains its password."""
    nightly = planted.nightly
    lock = f"--index-url https://jane:{canary('pip')}@index.invalid/simple\nidna==3.10 --hash=sha256:{'0' * 64}\n"
    (nightly.folder / "requirements.txt").write_text(lock)
    search = Search(needles=passwords(), markers={"error": b"index.invalid/simple"})
    search.look("error", spoken(nightly.builder("-v", "plan", "--json", "--lock", "requirements.txt"), code=3))
    search.check()


@pytest.mark.parametrize(
    "leak",
    [
        canary("x").encode(),
        base64.b64encode(f"jane:{canary('x')}".encode()),
        base64.b64encode(f"ja:{canary('x')}".encode()),
        base64.b64encode(f"j:{canary('x')}".encode()),
        base64.b64encode(f"{USER}:{PASSWORD}".encode()),
    ],
)
def test_search_finds_a_leak(leak: bytes) -> None:
    """Broken: the search finds nothing, so that every leak goes unnoticed."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        content = gzip.compress(b"password: " + leak + b"\n")
        entry = tarfile.TarInfo("etc/notes.gz")
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
    for packed in (layer.getvalue(), gzip.compress(layer.getvalue()), zstandard.compress(layer.getvalue())):
        search = Search(needles=passwords(), markers={"layer": b"etc/notes.gz"})
        search.look("layer", packed)
        assert len(search.leaks) == 1
        assert "etc/notes.gz" in search.leaks[0]


@pytest.mark.parametrize("form", ["pem", "der"])
def test_search_finds_a_certificate(form: str) -> None:
    """Broken: a CA in a bundle, or in the binary form of key stores, goes unnoticed."""
    pem = trustme.CA().cert_pem.bytes()
    content = pem if form == "pem" else ssl.PEM_cert_to_DER_cert(pem.decode())
    search = Search(needles=certificate_needles(pem), markers={"bundle": b"before"})
    search.look("bundle", b"before\n" + content + b"after\n")
    assert search.leaks
