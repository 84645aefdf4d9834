"""Malformed JSON and TOML from other programs: each place that reads some reports one clear error, no traceback."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import pytest
import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPResponse

from builder.engine.docker import DockerEngine
from builder.engine.protocol import ContainerExit
from builder.errors import BuilderError, EngineError, PublishError, RegistryError, VerifyError
from builder.image.build import BuildSettings, build
from builder.image.inputs import ImageInputs
from builder.image.render import render
from builder.oci import credentials
from builder.oci.archive import ImageArchive
from builder.oci.attestation import Attestation
from builder.oci.manifest import Manifest, descriptor, digest_of
from builder.oci.reference import Digest, ImageRef, Mirrors
from builder.oci.registry import Registries
from builder.process import Completed
from builder.release.diff import fetch_side
from builder.release.journal import fetch_journal, journal_of
from builder.verify.runner import run_checks
from builder.verify.search import BuildInputs
from tests import archives
from tests.engines import Recording
from tests.locks import pure
from tests.matrices import SMALL
from tests.plans import plan_of

REF = ImageRef.from_str("localhost:5000/acme/ci:3.12")
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"

# What any program may send where JSON is expected; none of it is what any of them should send.
ODD = {
    "nothing": b"",
    "no-json": b"<html>please log in</html>",
    "array": b"[[]]",
    "null": b"null",
    "number": b"3",
    "string": b'"text"',
    "garbage-in-an-array": b'[{"a": [null, {"b": 3}]}]',
    "not-utf-8": b'["\xff\xfe"]',
    "half": b'{"a": ',
    "deep-array": b"[" * 1000 + b"]" * 1000,
    "deep-object": b'{"a":' * 1000 + b"1" + b"}" * 1000,
}
odd = pytest.mark.parametrize("content", ODD.values(), ids=ODD)


def odd_and(*more: str) -> pytest.MarkDecorator:
    """Parametrize a test with the malformed contents, and with some for this reader alone."""
    cases = [*ODD.items(), *((text, text.encode()) for text in more)]
    return pytest.mark.parametrize("content", [content for _, content in cases], ids=[name for name, _ in cases])


@dataclass
class Response:
    """What a registry answers."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


class Answers(HTTPAdapter):
    """Answers requests by the end of their URL's path, instead of a network."""

    def __init__(self, responses: Mapping[str, Response]) -> None:
        super().__init__()
        self.responses = responses

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        """Look the answer up."""
        path = str(request.url).partition("?")[0]
        found = next(response for end, response in self.responses.items() if path.endswith(end))
        raw = HTTPResponse(
            body=io.BytesIO(found.body), headers=found.headers, status=found.status, preload_content=False
        )
        return self.build_response(request, raw)


def registries(responses: Mapping[str, Response]) -> Registries:
    """Registries with these answers."""
    asked = Registries(Mirrors())
    asked._transport._session.mount("http://", Answers(responses))
    return asked


def image_with(config: bytes) -> dict[str, Response]:
    """A registry's answers for an image with this config."""
    table = {"mediaType": MANIFEST_TYPE, "config": descriptor(config), "layers": []}
    return {
        "/manifests/3.12": Response(json.dumps(table).encode(), headers={"Content-Type": MANIFEST_TYPE}),
        f"/blobs/{digest_of(config)}": Response(config),
    }


@pytest.fixture(autouse=True)
def _docker_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep Docker's config in the test's folder, and unset the variables of a GitLab job."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    for name in ("CI_REGISTRY", "CI_DEPENDENCY_PROXY_SERVER"):
        monkeypatch.delenv(name, raising=False)


@odd_and("{}", '{"Username": "jane"}', '{"Username": "jane", "Secret": 3}', '{"Username": null, "Secret": "x"}')
def test_credential_helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    """Broken: a credential helper with other output causes a traceback."""
    (tmp_path / "config.json").write_text('{"credsStore": "odd"}', encoding="utf-8")
    printed = Completed(argv=(), returncode=0, stdout=content.decode(errors="replace"), stderr="")
    monkeypatch.setattr(credentials, "run", lambda *_, **__: printed)
    with pytest.raises(RegistryError, match="docker-credential-odd did not print a login"):
        credentials.credentials_for("registry.example.com")


@odd_and('{"auths": []}', '{"auths": {"x": 3}}', '{"credsStore": {}}', '{"proxies": {"default": 3}}')
def test_docker_config(tmp_path: Path, content: bytes) -> None:
    """Broken: a damaged Docker config file causes a traceback."""
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(RegistryError, match=r"cannot read .*config\.json"):
        credentials.credentials_for("registry.example.com")


@odd_and("{}", '{"token": 3}', '{"token": ["x"]}', '{"access_token": {}}')
def test_token(content: bytes) -> None:
    """Broken: a token server that answers with a login page causes a traceback."""
    challenge = {"WWW-Authenticate": 'Bearer realm="http://localhost:5000/token",service="x"'}
    answers = {"/token": Response(content), "/manifests/3.12": Response(status=401, headers=challenge)}
    with pytest.raises(RegistryError, match="did not send a token for acme/ci"):
        registries(answers).fetch_digest(REF)


@odd_and('{"tags": 3}', '{"tags": [3]}', '{"tags": {"a": "b"}}')
def test_tag_list(content: bytes) -> None:
    """Broken: a malformed list of tags causes a traceback."""
    with pytest.raises(RegistryError, match="did not send a list of tags"):
        registries({"/tags/list": Response(content)}).fetch_tags(REF)


@pytest.mark.parametrize(
    "link", ["<http://[/v2/>; rel=next", "</v2/acme/ci/tags/list?n=1000>; rel=next", "<?>; rel=next"]
)
def test_next_page_of_tags(link: str) -> None:
    """Broken: a malformed link to the next page causes a traceback, or a circular one an endless loop."""
    with pytest.raises(RegistryError, match=r"invalid address|without an end"):
        registries({"/tags/list": Response(b'{"tags": ["a"]}', headers={"Link": link})}).fetch_tags(REF)


@odd_and('{"layers": 3}', '{"layers": [{"digest": "x", "size": 1}]}', '{"config": "x"}', '{"manifests": [null]}')
def test_manifest(content: bytes) -> None:
    """Broken: a malformed manifest causes a traceback."""
    answer = Response(content, headers={"Content-Type": MANIFEST_TYPE})
    with pytest.raises(RegistryError, match="the answer is not a manifest"):
        registries({"/manifests/3.12": answer}).fetch_manifest(REF)


@pytest.mark.parametrize("digest", ["x", "sha256:12", "sha256:" + "z" * 64])
def test_digest(digest: str) -> None:
    """Broken: a malformed digest from a registry is reported as a mistake on the command line."""
    answer = Response(headers={"Docker-Content-Digest": digest, "Content-Type": MANIFEST_TYPE})
    with pytest.raises(RegistryError, match=digest):
        registries({"/manifests/3.12": answer}).fetch_digest(REF)


@pytest.mark.parametrize("headers", [{}, {"Location": "http://["}])
def test_upload_address(headers: Mapping[str, str]) -> None:
    """Broken: a registry that does not say where to upload to causes a traceback."""
    answers = {"/blobs/uploads/": Response(status=202, headers=headers), "": Response(status=404)}
    with pytest.raises(RegistryError, match=r"where to upload|invalid address"):
        registries(answers).put_blob(REF, digest_of(b"x"), _never_opened)


def _never_opened() -> IO[bytes]:
    raise AssertionError


@odd_and('{"errors": 3}', '{"errors": [3]}', '{"errors": [{"message": []}]}', '{"errors": []}')
def test_error(content: bytes) -> None:
    """Broken: a registry with its own format for errors causes a traceback."""
    with pytest.raises(RegistryError, match="answered 400"):
        registries({"/manifests/3.12": Response(content, status=400)}).fetch_manifest(REF)


@odd_and('{"config": 3}', '{"config": {"Labels": []}}', '{"history": {}}', '{"history": [3]}', '{"created": 3}')
def test_config(content: bytes) -> None:
    """Broken: a malformed image config causes a traceback."""
    asked = registries(image_with(content))
    manifest = asked.fetch_manifest(REF)
    assert manifest
    with pytest.raises(RegistryError, match="is not an image config"):
        asked.fetch_config(REF, manifest)


@odd
@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_layer_of_a_registry(content: bytes, kind: str) -> None:
    """Broken: a damaged layer causes a traceback in `builder diff`."""
    inputs = {"cell": "c", "python": "3", "base": "b", "uv": "u", "packages": {}, "settings": {}, "template": ""}
    labels = {"Labels": {"io.gitlab.prebuilt.inputs": json.dumps(inputs)}}
    answers = image_with(json.dumps({"config": labels}).encode())
    layer = {"mediaType": f"application/vnd.oci.image.layer.v1.tar+{kind}", **descriptor(content)}
    table = json.loads(answers["/manifests/3.12"].body) | {"layers": [layer]}
    answers["/manifests/3.12"].body = json.dumps(table).encode()
    answers[f"/blobs/{digest_of(content)}"] = Response(content)
    with pytest.raises(RegistryError, match="cannot be unpacked"):
        fetch_side("3.12", REF, registries(answers))


@odd_and(
    '[{"at": "yesterday", "complete": true, "moves": []}]',
    '[{"at": "2026-01-01T00:00:00+00:00", "complete": 1, "moves": []}]',
    '[{"at": "2026-01-01T00:00:00+00:00", "complete": true, "moves": [{"tag": "a", "old": "b", "new": null}]}]',
    '[{"at": "2026-01-01T00:00:00+00:00", "complete": true, "moves": [{"tag": "/", "old": null, "new": null}]}]',
)
def test_journal(content: bytes) -> None:
    """Broken: a malformed journal causes a traceback."""
    label = {"io.gitlab.prebuilt.journal": content.decode(errors="replace")}
    answers = image_with(json.dumps({"config": {"Labels": label}}).encode())
    answers["/manifests/builder-journal"] = answers["/manifests/3.12"]
    with pytest.raises(PublishError, match="is not a journal of builder"):
        fetch_journal(journal_of(REF, ""), registries(answers))


@odd_and("{}", '{"cell": 3}', '{"cell": "c", "python": "3.12", "base": "b", "uv": "u", "packages": 3}')
def test_label_with_inputs(content: bytes) -> None:
    """Broken: an image of another tool, or of another version of builder, causes a traceback in `builder plan`."""
    assert ImageInputs.from_label(content.decode(errors="replace")) is None


@odd_and("{}", '{"manifests": 3}', '{"manifests": [{"digest": "x"}]}')
@pytest.mark.parametrize("member", ["index.json", "manifest.json"])
def test_archive(tmp_path: Path, member: str, content: bytes) -> None:
    """Broken: an engine that saves other content causes a traceback."""
    path = archives._write(tmp_path / "image.tar", {member: content})
    with pytest.raises(EngineError, match="saved an archive that is not an image"), ImageArchive(path):
        pass


@odd
def test_archive_that_is_no_tar(tmp_path: Path, content: bytes) -> None:
    """Broken: an engine that saves a file other than a tar causes a traceback."""
    (tmp_path / "image.tar").write_bytes(content)
    with pytest.raises(EngineError, match="saved an archive that is not an image"):
        ImageArchive(tmp_path / "image.tar")


@odd
def test_layer_that_is_no_tar(tmp_path: Path, content: bytes) -> None:
    """Broken: a damaged layer causes a traceback."""
    path = archives.oci(tmp_path / "image.tar", b"\x1f\x8b" + content)
    with ImageArchive(path) as archive, pytest.raises(EngineError, match="cannot be unpacked"):
        list(archive.files(archive.layers[0]))


@odd
def test_attestation(content: bytes) -> None:
    """Broken: a malformed attestation causes a traceback in `builder push`."""
    manifest = Manifest.of({"mediaType": MANIFEST_TYPE})
    attestation = Attestation(
        entry=descriptor(manifest.content), manifest=manifest, blobs={str(digest_of(content)): content}
    )
    with pytest.raises(EngineError, match="an attestation that is not JSON"):
        attestation.rewritten({})


@dataclass(kw_only=True)
class OddBuilder(Recording):
    """A builder that writes this metadata."""

    metadata: bytes = b""

    def build(self, request: Any, *, on_line: Callable[[str], None]) -> int:
        """Play back, then write the metadata."""
        exit_code = super().build(request, on_line=on_line)
        request.metadata.write_bytes(self.metadata)
        return exit_code


@pytest.fixture
def building(tmp_path: Path, base_digest: Digest, uv_digest: Digest) -> Callable[[Recording], object]:
    """Builds an image with an engine."""
    rendered = render(plan_of(tmp_path, SMALL, pure("one"), base_digest=base_digest, uv_digest=uv_digest))
    settings = BuildSettings(mirrors=Mirrors(), secrets={}, logs=tmp_path / "logs")
    return lambda engine: build(rendered, engine, settings, tmp_path, on_step=lambda _: None)


@odd_and("{}", '{"containerimage.digest": 3}', '{"containerimage.digest": "sha256:12"}')
def test_build_metadata(building: Callable[[Recording], object], content: bytes) -> None:
    """Broken: a buildx with other metadata causes a traceback."""
    with pytest.raises(EngineError, match="docker buildx wrote malformed metadata"):
        building(OddBuilder(lines=[], metadata=content))


@odd_and(
    '{"vertexes": 3}',
    '{"vertexes": [{"name": "x"}]}',
    '{"logs": [{"data": "eA=="}]}',
    '{"logs": [{"vertex": "x", "data": "x"}]}',
)
def test_build_progress(building: Callable[[Recording], object], content: bytes) -> None:
    """Broken: a buildx with other progress causes a traceback."""
    with pytest.raises(BuilderError, match=r"progress in an unknown format|buildx build failed|3\.12-slim: "):
        building(Recording(lines=[content.decode(errors="replace")], exit_code=1))


@dataclass(frozen=True)
class OddImage:
    """An engine with an image whose programs print this; see `Engine`."""

    output: str
    limits: tuple[str, ...] = ()

    @contextlib.contextmanager
    def volume(self, *_: object) -> Iterator[str]:
        """Make none."""
        yield "volume"

    def run(self, _: str, script: str, **__: object) -> ContainerExit:
        """Print it, whatever the command; around it the marks of a script that came to its end."""
        marks = re.search(r'"(?P<mark>[0-9a-f]{16}) begin (?P<name>\S+) ', script)
        if marks is None:
            return ContainerExit(exit_code=0, output=self.output)
        begin, end = (f"{marks['mark']} {word} {marks['name']} 1.0" for word in ("begin", "end"))
        return ContainerExit(exit_code=0, output=f"{begin}\n{self.output}\n{end} 0\n")


@odd_and("{}", '{"files": 1}', '{"files": 1, "accepted": 1, "uncompilable": 0, "faults": [3]}', '[{"name": "x"}]')
@pytest.mark.parametrize(
    ("check", "evidence"),
    [
        ("bytecode", "unexpected output of the bytecode probe"),
        ("installed-set", "unexpected output of uv pip list"),
        ("second-environment", r"wc -l printed|3 of 4 packages"),
    ],
)
def test_program_in_an_image(check: str, evidence: str, content: bytes) -> None:
    """Broken: an image in which uv or Python print something else causes a traceback in `builder verify`."""
    engine: Any = OddImage(content.decode(errors="replace"))
    selection = dict.fromkeys(("one", "two", "three", "four"))
    inputs = BuildInputs(secrets={}, selection=selection)
    (result,) = run_checks("x", engine, checkout=None, inputs=inputs, only=[check])
    assert result.verdict == "failed"
    assert re.match(evidence, result.evidence)


@pytest.mark.parametrize(
    "text",
    [
        "<html>", "packages = 3", "packages = [3]", "[[packages]]\nname = 3", "[[packages]]\nversion = '1'",
        "x = " + "[" * 1000 + "]" * 1000, "x = " + "{a=" * 1000 + "1" + "}" * 1000, "\ufffd", "a.b = 1\na = 2",
    ],
    ids=range(9),
)  # fmt: skip
def test_recorded_selection(text: str) -> None:
    """Broken: an image with a damaged pylock.toml causes a traceback in `builder verify`."""
    engine: Any = OddImage(text)
    with pytest.raises(VerifyError, match=r"x has a malformed /opt/uv/pylock\.toml"):
        run_checks("x", engine, checkout=None, inputs=BuildInputs(secrets={}))


@dataclass(frozen=True)
class OddDaemon:
    """A client of the Docker SDK that returns this, whatever the request."""

    answer: object

    @property
    def api(self) -> OddDaemon:
        """The same."""
        return self

    def inspect_image(self, _: str) -> object:
        """Answer."""
        return self.answer

    def info(self) -> object:
        """Answer."""
        return self.answer


@pytest.mark.parametrize("answer", [[], None, 3, "x", {"Id": 3}, {"DriverStatus": 3}, {"DriverStatus": [["a"]]}])
def test_engine(monkeypatch: pytest.MonkeyPatch, answer: object) -> None:
    """Broken: a Docker engine with another answer, or a proxy in front of it, causes a traceback."""
    monkeypatch.setenv("DOCKER_HOST", "tcp://engine.invalid")
    engine = DockerEngine()
    engine._connected = OddDaemon(answer)
    with pytest.raises(EngineError, match=r"engine\.invalid sent a malformed answer"):
        engine.find_image_id("x")
    with pytest.raises(EngineError, match=r"engine\.invalid (sent a malformed answer|cannot store attestations)"):
        engine.check_attestations()


@odd
def test_docker_context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    """Broken: a damaged Docker context causes a traceback."""
    name = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"  # the SHA-256 of its name, x
    (tmp_path / "config.json").write_text('{"currentContext": "x"}', encoding="utf-8")
    (tmp_path / "contexts" / "meta" / name).mkdir(parents=True)
    (tmp_path / "contexts" / "meta" / name / "meta.json").write_bytes(content)
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    with pytest.raises(EngineError, match="context"):
        DockerEngine().find_image_id("x")


def test_login_is_base64(tmp_path: Path) -> None:
    """Broken: a login that is not UTF-8 causes a traceback."""
    auth = base64.b64encode(b"\xff\xfe").decode()
    (tmp_path / "config.json").write_text(json.dumps({"auths": {"registry.example.com": {"auth": auth}}}))
    with pytest.raises(RegistryError, match="unreadable login"):
        credentials.credentials_for("registry.example.com")
