"""Uploads to real registries: complete despite temporary failures, or a clear error."""

from __future__ import annotations

import io
import json
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

import certifi
import pytest

from builder.errors import InterruptedRun, RegistryError
from builder.oci import transport as module
from builder.oci.manifest import Manifest, digest_of
from builder.oci.reference import Digest, ImageRef, Mirrors
from builder.oci.registry import Registries
from tests.integration.faults import (
    Action,
    Answer,
    Call,
    CutRequest,
    CutResponse,
    Exchange,
    FaultProxy,
    Gone,
    HangUp,
    between,
)
from tests.integration.registries import (  # noqa: F401 - some are fixtures
    Registry,
    Tokens,
    a_faulty_registry,
    a_guarded_registry,
    a_keeping_registry,
    a_token_registry,
    an_open_registry,
    asking_for_tokens,
)

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
MEBIBYTE = 1 << 20
ATTEMPTS = 5  # of a write, the first one included
UPLOAD = "/blobs/uploads/.+"  # where a blob's content goes
MANIFESTS = "/manifests/"

Attempts = tuple[Callable[[], object], ...]

pytestmark = pytest.mark.usefixtures("clean_environment", "hasty")


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the pauses between attempts; their number stays."""
    monkeypatch.setattr(module, "_PAUSES", (0.01,) * len(module._PAUSES))


@pytest.fixture
def log_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Registry]:
    """Log in to a registry and trust it."""

    def log_in(registry: Registry, password: str | None = None) -> Registry:
        for name, value in registry.environment(tmp_path / "docker", password=password).items():
            monkeypatch.setenv(name, value)
        return registry

    return log_in


@pytest.fixture(params=["open", "guarded", "keeping", "token"])
def any_registry(request: pytest.FixtureRequest, log_in: Callable[..., Registry]) -> Registry:
    """Each kind of registry in turn, with a login."""
    found = request.getfixturevalue(f"{request.param}_registry")
    return log_in(found.registry if isinstance(found, Tokens) else found)


@pytest.fixture
def ci(faulty: FaultProxy, log_in: Callable[..., Registry]) -> ImageRef:
    """A repository for this test, behind the fault proxy."""
    return fresh(log_in(Registry(host=faulty.host)))


def fresh(registry: Registry) -> ImageRef:
    """A tag in an unused repository."""
    return registry.ref(f"acme/{secrets.token_hex(6)}:3.12")


def registries(stopped: threading.Event | None = None) -> Registries:
    """Registries without mirrors."""
    return Registries(Mirrors(), stopped=stopped)


def content(size: int = MEBIBYTE) -> tuple[bytes, Digest]:
    """Random bytes, and their digest."""
    made = secrets.token_bytes(size)
    return made, digest_of(made)


def put(asked: Registries, ref: ImageRef, blob: bytes) -> Digest:
    """Upload a blob from memory."""
    asked.put_blob(ref, digest_of(blob), lambda: io.BytesIO(blob))
    return digest_of(blob)


def image(asked: Registries, ref: ImageRef) -> Manifest:
    """Upload the blobs of a small image and return its manifest, in a form that no JSON library would write."""
    config = json.dumps({"architecture": "amd64", "os": "linux", "is": secrets.token_hex(8)}).encode()
    layer, _ = content(2000)
    described = [
        {"mediaType": kind, "digest": str(put(asked, ref, blob)), "size": len(blob)}
        for kind, blob in ((OCI_CONFIG, config), (OCI_LAYER, layer))
    ]
    table = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": described[1:], "config": described[0]}
    return Manifest(content=json.dumps(table, indent=5).encode() + b" \n\n", media_type=OCI_MANIFEST)


def test_blob_round_trip(any_registry: Registry) -> None:
    """Broken: a kind of registry rejects a layer, or stores it damaged."""
    ref, asked = fresh(any_registry), registries()
    blob, digest = content(3 * MEBIBYTE + 1)
    assert not asked.has_blob(ref, digest)
    put(asked, ref, blob)
    assert asked.has_blob(ref, digest)
    assert registries().fetch_blob(ref, digest) == blob


def test_manifest_round_trip(any_registry: Registry) -> None:
    """Broken: a registry returns a manifest with other bytes, and so another digest."""
    ref, asked = fresh(any_registry), registries()
    manifest = image(asked, ref)
    assert asked.fetch_digest(ref) is None
    assert asked.fetch_manifest(ref) is None
    asked.put_manifest(ref, manifest)
    asked.put_manifest(ref.with_tag("latest"), manifest)
    for name in (ref, ref.with_tag("latest"), ref.without_tag().with_digest(manifest.digest)):
        assert registries().fetch_manifest(name) == manifest
    assert registries().fetch_digest(ref) == registries().resolve(ref.with_tag("latest")) == manifest.digest


def test_manifest_is_put_by_digest(any_registry: Registry) -> None:
    """Broken: a manifest that an index names cannot be uploaded without a tag."""
    ref, asked = fresh(any_registry), registries()
    manifest = image(asked, ref)
    asked.put_manifest(ref.without_tag(), manifest)
    assert asked.fetch_manifest(ref.without_tag().with_digest(manifest.digest)) == manifest
    assert asked.fetch_tags(ref) == ()


def test_tags(any_registry: Registry) -> None:
    """Broken: the list of tags is incomplete, or a missing repository is an error."""
    ref, asked = fresh(any_registry), registries()
    assert asked.fetch_tags(ref) == ()
    manifest = image(asked, ref)
    for tag in ("3.13", "3.12", "latest"):
        asked.put_manifest(ref.with_tag(tag), manifest)
    assert asked.fetch_tags(ref) == ("3.12", "3.13", "latest")


def test_tag_moves(any_registry: Registry) -> None:
    """Broken: an existing tag keeps naming the old image."""
    ref, asked = fresh(any_registry), registries()
    old, new = image(asked, ref), image(asked, ref)
    asked.put_manifest(ref, old)
    asked.put_manifest(ref, new)
    assert asked.fetch_digest(ref) == new.digest
    assert asked.fetch_manifest(ref.without_tag().with_digest(old.digest)) == old


@pytest.mark.parametrize("kind", ["open_registry", "guarded_registry", "token_registry"])
def test_delete(kind: str, request: pytest.FixtureRequest, log_in: Callable[..., Registry]) -> None:
    """Broken: prune does not delete a manifest, deletes another one too, or cannot be run again."""
    found = request.getfixturevalue(kind)
    ref, asked = fresh(log_in(found.registry if isinstance(found, Tokens) else found)), registries()
    old, new = image(asked, ref), image(asked, ref)
    asked.put_manifest(ref, old)
    asked.put_manifest(ref.with_tag("new"), new)
    for _ in range(2):
        asked.delete(ref.with_digest(old.digest))
    assert asked.fetch_digest(ref) is None
    assert asked.fetch_manifest(ref.without_tag().with_digest(old.digest)) is None
    assert asked.fetch_digest(ref.with_tag("new")) == new.digest


def test_deletion_is_not_offered(keeping_registry: Registry, log_in: Callable[..., Registry]) -> None:
    """Broken: the error does not say that the registry does not allow deletion."""
    ref, asked = fresh(log_in(keeping_registry)), registries()
    manifest = image(asked, ref)
    asked.put_manifest(ref, manifest)
    with pytest.raises(RegistryError, match="does not allow deletion") as raised:
        asked.delete(ref.with_digest(manifest.digest))
    assert raised.value.hint
    assert asked.fetch_digest(ref) == manifest.digest


def test_blob_that_is_there_is_not_sent(faulty: FaultProxy, ci: ImageRef) -> None:
    """Broken: every push uploads all layers again."""
    asked = registries()
    blob, _ = content()
    put(asked, ci, blob)
    put(asked, ci, blob)
    assert len(faulty.seen("PUT")) == 1


def test_file_of_an_upload_is_closed(faulty: FaultProxy, ci: ImageRef, tmp_path: Path) -> None:
    """Broken: each upload, and each further attempt, leaves a file open."""
    blob, digest = content()
    path = tmp_path / "layer"
    path.write_bytes(blob)
    opened: list[IO[bytes]] = []

    def reopened() -> IO[bytes]:
        opened.append(path.open("rb"))
        return opened[-1]

    faulty.on("PUT", UPLOAD, Answer(status=503))
    registries().put_blob(ci, digest, reopened)
    assert [file.closed for file in opened] == [True, True]


PASSING: list[tuple[str, Action]] = [
    ("429", Answer(status=429)),
    ("429-with-pause", Answer(status=429, headers={"Retry-After": "0"})),
    ("429-with-date", Answer(status=429, headers={"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"})),
    ("500", Answer(status=500)),
    ("502", Answer(status=502, body=b"<html>Bad Gateway</html>")),
    ("503", Answer(status=503)),
    ("504", Answer(status=504)),
    ("refused-early", Answer(status=502, early=True)),
    ("cut-in-request", CutRequest(after=200)),
    ("no-answer", HangUp()),
    ("answer-lost", HangUp(forward=True)),
]
passing = pytest.mark.parametrize("action", [action for _, action in PASSING], ids=[name for name, _ in PASSING])


@passing
@pytest.mark.parametrize("stage", ["POST", "PUT"])
def test_blob_gets_through(faulty: FaultProxy, ci: ImageRef, action: Action, stage: str) -> None:
    """Broken: a temporary failure ends a push, or a second attempt sends other content."""
    rule = faulty.on(stage, "/blobs/uploads/", action)
    blob, digest = content(4 * MEBIBYTE)
    put(registries(), ci, blob)
    assert registries().fetch_blob(ci, digest) == blob
    assert rule.matched == 2


@pytest.mark.parametrize("after", [0, 1, MEBIBYTE, 4 * MEBIBYTE - 1, 4 * MEBIBYTE])
def test_blob_cut_anywhere(faulty: FaultProxy, ci: ImageRef, after: int) -> None:
    """Broken: a lost connection ends the push, or leaves a truncated layer."""
    rule = faulty.on("PUT", UPLOAD, CutRequest(after=after))
    blob, digest = content(4 * MEBIBYTE)
    put(registries(), ci, blob)
    assert registries().fetch_blob(ci, digest) == blob
    assert rule.matched == 2


@passing
def test_manifest_gets_through(faulty: FaultProxy, ci: ImageRef, action: Action) -> None:
    """Broken: a temporary failure prevents the move of a tag."""
    asked = registries()
    manifest = image(asked, ci)
    rule = faulty.on("PUT", MANIFESTS, action)
    asked.put_manifest(ci, manifest)
    assert asked.fetch_manifest(ci) == manifest
    assert rule.matched == 2


@passing
def test_deletion_gets_through(faulty: FaultProxy, ci: ImageRef, action: Action) -> None:
    """Broken: a temporary failure ends prune, or a lost connection causes a traceback."""
    asked = registries()
    manifest = image(asked, ci)
    asked.put_manifest(ci, manifest)
    rule = faulty.on("DELETE", MANIFESTS, action)
    asked.delete(ci.with_digest(manifest.digest))
    assert asked.fetch_digest(ci) is None
    assert rule.matched == 2


@pytest.mark.parametrize(
    "action",
    [*(action for _, action in PASSING), CutResponse(after=0), CutResponse(after=10)],
    ids=[*(name for name, _ in PASSING), "cut-before-answer", "cut-in-answer"],
)
def test_reading_gets_through(faulty: FaultProxy, ci: ImageRef, action: Action) -> None:
    """Broken: a temporary failure ends a plan, or builder accepts a truncated manifest."""
    asked = registries()
    manifest = image(asked, ci)
    config = Digest.from_str(manifest.table["config"]["digest"])
    content = asked.fetch_blob(ci, config)
    asked.put_manifest(ci, manifest)
    rules = [faulty.on(method, MANIFESTS, action) for method in ("HEAD", "GET")]
    rules += [faulty.on("GET", path, action) for path in ("/tags/", "/blobs/")]
    assert asked.fetch_digest(ci) == manifest.digest
    assert asked.fetch_manifest(ci) == manifest
    assert asked.fetch_tags(ci) == ("3.12",)
    assert asked.fetch_blob(ci, config) == content
    # The answer to HEAD has no body to be cut in.
    assert [rule.matched for rule in rules] == [1 if isinstance(action, CutResponse) else 2, 2, 2, 2]


class Waits(threading.Event):
    """An event that is never set; records the waiting times, and does not wait."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float | None] = []

    def wait(self, timeout: float | None = None) -> bool:
        """Record the time."""
        self.seconds.append(timeout)
        return False


@pytest.mark.parametrize(("said", "heeded"), [("7", 7.0), ("86400", module._LONGEST_PAUSE), ("soon", 0.01)])
def test_retry_after(faulty: FaultProxy, ci: ImageRef, said: str, heeded: float) -> None:
    """Broken: builder repeats a request sooner than Retry-After says, or waits for a day."""
    waits = Waits()
    faulty.on("PUT", UPLOAD, Answer(status=429, headers={"Retry-After": said}))
    put(registries(waits), ci, content()[0])
    assert waits.seconds == [heeded]


def test_retry_after_while_reading(faulty: FaultProxy, ci: ImageRef) -> None:
    """Broken: a registry can make a plan wait for a day."""
    waits = Waits()
    faulty.on("HEAD", MANIFESTS, Answer(status=429, headers={"Retry-After": "86400"}))
    assert registries(waits).fetch_digest(ci) is None
    assert waits.seconds == [module._LONGEST_PAUSE]


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (Answer(status=502), "answered 502"),
        (Answer(status=429, headers={"Retry-After": "0"}), "answered 429"),
        (HangUp(), "cannot reach"),
        (CutRequest(after=100), "cannot reach"),
    ],
    ids=["502", "429", "hang-up", "cut"],
)
def test_attempts_are_bounded(faulty: FaultProxy, ci: ImageRef, action: Action, words: str) -> None:
    """Broken: builder repeats requests to a failing registry for ever, or does not report the failure."""
    asked = registries()
    manifest = image(asked, ci)
    blobs = faulty.on("PUT", UPLOAD, action, times=None)
    manifests = faulty.on("PUT", MANIFESTS, action, times=None)
    with pytest.raises(RegistryError, match=words):
        put(asked, ci, content()[0])
    with pytest.raises(RegistryError, match=words) as raised:
        asked.put_manifest(ci, manifest)
    assert blobs.matched == manifests.matched == ATTEMPTS
    assert ci.registry in raised.value.what
    assert raised.value.exit_code == 3


FULL = json.dumps({"errors": [{"code": "UNKNOWN", "message": "unknown error", "detail": "no space left on device"}]})


@pytest.mark.parametrize(("status", "attempts"), [(500, ATTEMPTS), (507, 1)])
def test_full_registry(faulty: FaultProxy, ci: ImageRef, status: int, attempts: int) -> None:
    """Broken: the error does not quote the registry's message that its disk is full."""
    rule = faulty.on("PUT", UPLOAD, Answer(status=status, body=FULL.encode()), times=None)
    with pytest.raises(RegistryError, match="no space left on device") as raised:
        put(registries(), ci, content()[0])
    assert str(status) in raised.value.what
    assert rule.matched == attempts


def test_registry_gone_between_blobs(faulty: FaultProxy, ci: ImageRef) -> None:
    """Broken: a registry that stops causes a traceback or endless waiting, or the next run cannot continue."""
    asked = registries()
    first, second = content(), content()
    put(asked, ci, first[0])
    faulty.on("POST", "/blobs/uploads/", Gone())
    attempts: Attempts = (
        lambda: put(asked, ci, second[0]),
        lambda: asked.fetch_digest(ci),
        lambda: asked.fetch_tags(ci),
    )
    for attempt in attempts:
        with pytest.raises(RegistryError) as raised:
            attempt()
        assert ci.registry in raised.value.what
        assert raised.value.exit_code == 3
    faulty.come_back()
    put(asked, ci, second[0])
    assert asked.fetch_blob(ci, first[1]) + asked.fetch_blob(ci, second[1]) == first[0] + second[0]


@pytest.mark.parametrize("lifetime", [1, 2, 3])
def test_token_expires_between_blobs(
    open_registry: Registry, log_in: Callable[..., Registry], lifetime: int
) -> None:  # fmt: skip
    """Broken: a push that takes longer than a token's lifetime fails."""
    with asking_for_tokens(open_registry, lifetime=lifetime) as tokens:
        ref, asked = fresh(log_in(tokens.registry)), registries()
        blobs = [content(200_000) for _ in range(4)]
        for blob, _ in blobs:
            put(asked, ref, blob)
        manifest = image(asked, ref)
        asked.put_manifest(ref, manifest)
        assert asked.fetch_manifest(ref) == manifest
        assert [asked.fetch_blob(ref, digest) for _, digest in blobs] == [blob for blob, _ in blobs]
        assert len(tokens.issued) > 1


def test_token_that_is_never_good(open_registry: Registry, log_in: Callable[..., Registry]) -> None:
    """Broken: builder requests tokens for ever if the registry rejects them."""
    with asking_for_tokens(open_registry, lifetime=0) as tokens:
        ref = fresh(log_in(tokens.registry))
        attempts: Attempts = (lambda: put(registries(), ref, b"x"), lambda: registries().fetch_digest(ref))
        for attempt in attempts:
            with pytest.raises(RegistryError, match="does not allow this user"):
                attempt()
        assert len(tokens.issued) == 2


def test_tokens_ask_for_no_more_than_needed(token_registry: Tokens, log_in: Callable[..., Registry]) -> None:
    """Broken: a plan requests push access, which many jobs do not have."""
    ref, asked = fresh(log_in(token_registry.registry)), registries()
    asked.fetch_digest(ref)
    asked.fetch_tags(ref)
    put(asked, ref, b"x")
    scope = f"repository:{ref.repository}"
    assert token_registry.issued == [(f"{scope}:pull",), (f"{scope}:pull,push",)]


@pytest.mark.parametrize("kind", ["guarded", "token"])
def test_wrong_password(kind: str, request: pytest.FixtureRequest, log_in: Callable[..., Registry]) -> None:
    """Broken: builder repeats a wrong password until the account is locked, or prints it."""
    found = request.getfixturevalue(f"{kind}_registry")
    registry = found.registry if isinstance(found, Tokens) else found
    ref = fresh(log_in(registry, password="sesame, shut"))
    manifest = Manifest(content=b"{}", media_type=OCI_MANIFEST)
    attempts: Attempts = (
        lambda: put(registries(), ref, b"x"),
        lambda: registries().put_manifest(ref, manifest),
        lambda: registries().fetch_digest(ref),
    )
    for attempt in attempts:
        with pytest.raises(RegistryError) as raised:
            attempt()
        assert ref.registry in raised.value.what
        assert "docker login" in raised.value.hint
        assert "sesame" not in str(raised.value)
        assert raised.value.exit_code == 3
    if isinstance(found, Tokens):
        assert len(found.proxy.seen("GET", "^/token")) == 3


def test_nobody_is_logged_in(guarded_registry: Registry, log_in: Callable[..., Registry], tmp_path: Path) -> None:
    """Broken: the error does not tell users without a login to log in."""
    log_in(guarded_registry)
    (tmp_path / "docker" / "config.json").unlink()
    with pytest.raises(RegistryError, match="requires a password") as raised:
        put(registries(), fresh(guarded_registry), b"x")
    assert f"docker login {guarded_registry.host}" in raised.value.hint


def test_gitlab_job_needs_no_login(
    guarded_registry: Registry, log_in: Callable[..., Registry], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken: a job has to log in to its own project's registry."""
    log_in(guarded_registry)
    (tmp_path / "docker" / "config.json").unlink()
    monkeypatch.setenv("CI_REGISTRY", guarded_registry.host)
    monkeypatch.setenv("CI_REGISTRY_USER", guarded_registry.user)
    monkeypatch.setenv("CI_REGISTRY_PASSWORD", guarded_registry.password)
    put(registries(), fresh(guarded_registry), b"x")


def test_permission_denied(token_registry: Tokens, log_in: Callable[..., Registry]) -> None:
    """Broken: the error does not say that the user may only pull, or the request is repeated."""
    token_registry.refuses_push = True
    ref, asked = fresh(log_in(token_registry.registry)), registries()
    manifest = Manifest(content=b"{}", media_type=OCI_MANIFEST)
    attempts: dict[str, Callable[[], object]] = {
        "write": lambda: put(asked, ref, b"x"),
        "delete": lambda: asked.delete(ref.with_digest(manifest.digest)),
    }
    for verb, attempt in attempts.items():
        with pytest.raises(RegistryError, match=f"does not allow this user to {verb}") as raised:
            attempt()
        assert "requested access to the resource is denied" in raised.value.what
        assert str(ref) in raised.value.what
    with pytest.raises(RegistryError, match="does not allow this user to write"):
        asked.put_manifest(ref, manifest)
    # Deletion is a right of its own, for which another token is asked.
    assert [each.status for each in token_registry.proxy.seen("POST|PUT|DELETE")] == [401, 403, 401, 403, 403]


def test_unknown_host(log_in: Callable[..., Registry]) -> None:
    """Broken: a mistyped registry causes a traceback, or minutes of attempts."""
    ref = fresh(log_in(Registry(host="registry.invalid")))
    attempts: Attempts = (
        lambda: put(registries(), ref, b"x"),
        lambda: registries().put_manifest(ref, Manifest(content=b"{}", media_type=OCI_MANIFEST)),
        lambda: registries().fetch_tags(ref),
    )
    for attempt in attempts:
        with pytest.raises(RegistryError, match=r"registry\.invalid"):
            attempt()


def test_untrusted_certificate(
    guarded_registry: Registry, log_in: Callable[..., Registry], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken: builder accepts an untrusted certificate, or the error does not say what to set."""
    ref = fresh(log_in(guarded_registry))
    monkeypatch.setenv("SSL_CERT_FILE", certifi.where())
    attempts: Attempts = (
        lambda: put(registries(), ref, b"x"),
        lambda: registries().put_manifest(ref, Manifest(content=b"{}", media_type=OCI_MANIFEST)),
        lambda: registries().fetch_digest(ref),
    )
    for attempt in attempts:
        with pytest.raises(RegistryError, match="is not trusted") as raised:
            attempt()
        assert "SSL_CERT_FILE" in raised.value.hint


@pytest.mark.parametrize("other", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_ssl_cert_file_wins(
    guarded_registry: Registry, log_in: Callable[..., Registry], monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    """Broken: variables for other tools override SSL_CERT_FILE."""
    ref = fresh(log_in(guarded_registry))
    monkeypatch.setenv(other, certifi.where())
    put(registries(), ref, b"x")


def test_stopped_during_an_upload(faulty: FaultProxy, ci: ImageRef) -> None:
    """Broken: Ctrl-C takes effect only after the layer, which may take minutes."""
    stopped = threading.Event()
    blob, digest = content(64 * MEBIBYTE)

    def stop(_: Exchange) -> None:
        stopped.set()

    faulty.on("PUT", UPLOAD, Call(stop))
    begun = time.monotonic()
    with pytest.raises(InterruptedRun):
        put(registries(stopped), ci, blob)
    assert time.monotonic() - begun < 10
    (upload,) = faulty.seen("PUT")
    assert upload.received < len(blob)
    assert not registries().has_blob(ci, digest)


def test_stopped_during_a_pause(faulty: FaultProxy, ci: ImageRef) -> None:
    """Broken: Ctrl-C takes effect only after the time in Retry-After."""
    stopped = threading.Event()

    def stop_soon(_: Exchange) -> Action:
        threading.Timer(0.2, stopped.set).start()
        return Answer(status=429, headers={"Retry-After": "50"})

    faulty.on("POST", "/blobs/uploads/", Call(stop_soon))
    begun = time.monotonic()
    with pytest.raises(InterruptedRun):
        put(registries(stopped), ci, b"x")
    assert time.monotonic() - begun < 10
    assert len(faulty.seen("POST")) == 1


def test_stopped_before(faulty: FaultProxy, ci: ImageRef) -> None:
    """Broken: an interrupted run sends more requests."""
    stopped = threading.Event()
    stopped.set()
    attempts: Attempts = (lambda: put(registries(stopped), ci, b"x"), lambda: registries(stopped).fetch_digest(ci))
    for attempt in attempts:
        with pytest.raises(InterruptedRun):
            attempt()
    assert faulty.seen() == []


def test_tags_come_in_pages(faulty: FaultProxy, ci: ImageRef) -> None:
    """Broken: builder reads only the first page of tags, and prune deletes what the others name."""
    path = f"/v2/{ci.repository}/tags/list"
    pages: dict[str, tuple[str, list[str] | None]] = {
        r"n=1000$": (f'<{path}?n=1000&last=b>; rel="next"', ["c", "b"]),
        "last=b$": (f'<http://{faulty.host}{path}?last=d>; rel="next"', ["d"]),
        "last=d$": ('<?last=empty>; rel="next"', None),
        "last=empty$": ("", ["a"]),
    }
    for asked, (link, tags) in pages.items():
        body = json.dumps({"name": ci.repository, "tags": tags}).encode()
        faulty.on("GET", asked, Answer(status=200, body=body, headers={"Link": link} if link else {}))
    assert registries().fetch_tags(ci) == ("a", "b", "c", "d")
    assert len(faulty.seen()) == len(pages)


def test_registry_that_changes_a_manifest(faulty: FaultProxy, ci: ImageRef) -> None:
    """Broken: a tag names an image other than the verified one."""
    asked = registries()
    manifest = image(asked, ci)
    other = content()[1]
    faulty.on("PUT", MANIFESTS, Answer(status=201, headers={"Docker-Content-Digest": str(other)}))
    with pytest.raises(RegistryError, match=f"changed the manifest.*{other}"):
        asked.put_manifest(ci, manifest)


def test_registry_that_sends_something_else(faulty: FaultProxy, ci: ImageRef) -> None:
    """Broken: builder does not compare content with its digest."""
    digest = content()[1]
    faulty.on("GET", str(digest), Answer(status=200, body=b"{}"), times=None)
    with pytest.raises(RegistryError, match="sent other content"):
        registries().fetch_manifest(ci.without_tag().with_digest(digest))
    with pytest.raises(RegistryError, match="sent other content"):
        registries().fetch_blob(ci, digest)


def test_credentials_go_to_their_registry_only(
    token_registry: Tokens, faulty: FaultProxy, log_in: Callable[..., Registry]
) -> None:
    """Broken: a registry that redirects uploads gets its users' tokens sent to other hosts."""
    faulty.on("PUT", UPLOAD, Answer(status=201), times=None)
    with between(token_registry.proxy.host) as door:
        login = Registry(host=door.host, user=token_registry.registry.user, password=token_registry.registry.password)
        ref, asked = fresh(log_in(login)), registries()
        put(asked, ref, b"one")
        for name in (faulty.host, f"{door.host}@{faulty.host}"):
            where = {"Location": f"http://{name}/v2/{ref.repository}/blobs/uploads/elsewhere"}
            door.on("POST", "/blobs/uploads/", Answer(status=202, headers=where))
            put(asked, ref, secrets.token_bytes(3))
        assert "authorization" in door.seen("POST", "/blobs/uploads/")[-1].headers
    assert len(faulty.seen("PUT")) == 2
    assert not any("authorization" in each.headers for each in faulty.seen())
