"""Fuzzed input at each door, a place where something from outside comes in: a value or one clear error, no traceback.

Each door gets 100 inputs, the same in every run; with INPUTS=1000 in the environment, as in `make test`, a thousand.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final
from unittest import mock

import pytest
import requests
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from requests.adapters import HTTPAdapter
from urllib3 import HTTPResponse

from builder import http
from builder.errors import BuilderError
from builder.gitlab.adopt.adopt import adopt
from builder.gitlab.adopt.file import parse_gitlab_file
from builder.gitlab.adopt.pipeline import Pipeline
from builder.image.inputs import ImageInputs
from builder.lock.build_system import build_systems
from builder.lock.index import PinnedProject, fetch_files
from builder.lock.kept_answer import AnswerCache
from builder.lock.page import IndexedFile
from builder.lock.project import has_overrides, project_name
from builder.lock.python import choose_python
from builder.lock.read import read_lock
from builder.lock.select import select
from builder.matrix.file import parse_matrix
from builder.matrix.schema import Install
from builder.oci import credentials, transport
from builder.oci.manifest import digest_of
from builder.oci.reference import ImageRef, Mirrors
from builder.oci.registry import Registries
from builder.process import Completed
from builder.redaction import redact
from builder.release.diff import fetch_side
from builder.release.journal import fetch_journal
from builder.release.promote import fetch_rollback
from builder.release.prune import Retention, fetch_candidates
from builder.release.state import fetch_image_inputs
from builder.request import today
from builder.secret import read_build_secrets
from tests.fuzz import INDEX_TYPE, MANIFEST_TYPE, damaged, headers, texts
from tests.matrices import EXAMPLE, SMALL

REF: Final = ImageRef.from_str("localhost:5000/acme/ci:3.12")
DIGEST: Final = f"sha256:{'a' * 64}"
_SETTINGS: Final = settings(
    max_examples=int(os.environ.get("INPUTS", "100")), derandomize=True, database=None, deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip


@pytest.fixture(autouse=True)
def _surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in an empty folder, without pauses between requests."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setattr(transport, "_PAUSES", ())


def _text(content: bytes) -> str:
    return content.decode(errors="replace")


def _table(**fields: Any) -> str:
    return json.dumps(fields)


MOVE = {"tag": "3.12-slim", "old": DIGEST, "new": DIGEST}
JOURNAL = json.dumps([{"at": "2026-01-01T00:00:00+00:00", "complete": True, "moves": [MOVE]}])
INPUTS = _table(cell="c", python="3", base="b", uv="u", packages={"a": "1"}, settings={}, template="")
LABELS = {
    "io.gitlab.prebuilt.cell": "3.12-slim", "io.gitlab.prebuilt.key": "0" * 64, "io.gitlab.prebuilt.journal": JOURNAL,
    "io.gitlab.prebuilt.inputs": INPUTS,
}  # fmt: skip
CONFIG = _table(
    architecture="amd64", os="linux", created="2026-01-01T00:00:00Z", config={"Labels": LABELS, "Entrypoint": ["sh"]},
    rootfs={"type": "layers", "diff_ids": []}, history=[{"created_by": "RUN", "empty_layer": True}],
)  # fmt: skip
MANIFEST = _table(
    schemaVersion=2, mediaType=MANIFEST_TYPE, config={"mediaType": "x", "digest": DIGEST, "size": 9999},
    layers=[{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": DIGEST, "size": 9999}],
    annotations={"io.gitlab.prebuilt.pushed": "2026-01-01T00:00:00Z"},
)  # fmt: skip
INDEX = _table(schemaVersion=2, mediaType=INDEX_TYPE, manifests=[{"digest": DIGEST, "size": 3, "annotations": {}}])
TAGS = _table(name="acme/ci", tags=["3.12-slim", "3.12-slim-000000000000", "builder-journal", "builder-journal-mr-1"])
TOKEN = _table(token="t0ken")


class _Registry(HTTPAdapter):
    """Answers with odd headers; manifests name the config that there is, so that reading goes on."""

    def __init__(self, parts: Mapping[str, bytes], odd: Mapping[str, str], status: int, which: str) -> None:
        super().__init__()
        self.parts, self.odd, self.status, self.which = parts, odd, status, which

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        """Answer by what the path names."""
        path = str(request.url).partition("?")[0]
        kind = next((kind for kind in self.parts if f"/{kind}" in path), "token")
        body = self.parts[kind].replace(DIGEST.encode(), str(digest_of(self.parts["blobs"])).encode())
        given = {"Content-Type": MANIFEST_TYPE} if kind == "manifests" else {}
        is_odd = self.which in {"all", kind}
        raw = HTTPResponse(
            body=io.BytesIO(body), headers={**given, **(self.odd if is_odd else {})}, preload_content=False,
            status=self.status if is_odd else 200,
        )  # fmt: skip
        return self.build_response(request, raw)


@_SETTINGS
@given(
    parts=st.fixed_dictionaries({
        "manifests": damaged(MANIFEST, INDEX), "blobs": damaged(CONFIG), "tags": damaged(TAGS), "token": damaged(TOKEN),
    }),
    odd=headers,
    status=st.sampled_from([200, 200, 200, 201, 202, 204, 301, 307, 401, 404, 429, 500]),
    which=st.sampled_from(["all", "manifests", "blobs", "tags", "token", "none"]),
    action=st.integers(0, 8),
)  # fmt: skip
def test_registry(parts: dict[str, bytes], odd: dict[str, str], status: int, which: str, action: int) -> None:
    """Broken: an odd answer of a registry causes a traceback."""
    asked = Registries(Mirrors())
    answers = _Registry(parts, odd, status, which)
    for scheme in ("http://", "https://"):
        asked._transport._session.mount(scheme, answers)
    past = datetime(2025, 1, 1, tzinfo=timezone.utc)
    retention = Retention(generations=3, keys=(), pushed_after=past, promoted_after=past, deleted_branch="mr-1")
    actions = (
        lambda: asked.fetch_digest(REF),
        lambda: asked.put_blob(REF, digest_of(b"x"), lambda: io.BytesIO(b"x")),
        lambda: asked.delete(REF),
        lambda: fetch_candidates(REF.without_tag(), asked, retention),
        lambda: fetch_journal(REF, asked),
        lambda: fetch_rollback(REF, asked),
        lambda: fetch_image_inputs(REF, asked),
        lambda: fetch_side("3.12", REF, asked),
        lambda: asked.fetch_tags(REF),
    )
    with contextlib.suppress(BuilderError):
        actions[action]()


@_SETTINGS
@given(
    config=damaged(
        _table(
            auths={"x": {"auth": "eDp5"}},
            credsStore="",
            credHelpers={"r.example": "odd"},
            proxies={"default": {"httpProxy": "http://x"}},
        ),
        '{"credsStore": "odd"}',
    ),
    printed=damaged(_table(Username="jane", Secret="x")),
    registry=st.sampled_from(["x", "r.example", "docker.io"]),
)
def test_docker_config(tmp_path: Path, config: bytes, printed: bytes, registry: str) -> None:
    """Broken: an odd config file of Docker, or an odd credential helper, causes a traceback."""
    (tmp_path / "config.json").write_bytes(config)
    answer = Completed(argv=(), returncode=0, stdout=_text(printed), stderr="")
    with mock.patch.object(credentials, "run", return_value=answer):
        for door in (lambda: credentials.credentials_for(registry), credentials.configured_proxies):
            with contextlib.suppress(BuilderError):
                door()


_DEEP = f"x = {'[' * 3000}".encode()
_LONG = f"x = {'9' * 5000}".encode()


@_SETTINGS
@example(_DEEP)
@example(_LONG)
@given(damaged(SMALL, EXAMPLE))
def test_matrix(content: bytes) -> None:
    """Broken: an odd matrix causes a traceback."""
    with contextlib.suppress(BuilderError):
        parse_matrix(_text(content), source="matrix.toml")


PYLOCK = """\
lock-version = "1.0"
created-by = "x"
requires-python = ">=3.10"
environments = ["sys_platform == 'linux'"]
extras = ["a"]
dependency-groups = ["dev"]
default-groups = ["dev"]

[[packages]]
name = "one"
version = "1.0"
marker = "python_version < '4' and 'dev' in dependency_groups"
requires-python = ">=3.8"
dependencies = [{ name = "two" }]
index = "https://index.invalid/simple"

[[packages.wheels]]
name = "one-1.0-py3-none-any.whl"
url = "https://files.invalid/one-1.0-py3-none-any.whl"
upload-time = 2026-01-01T00:00:00Z
size = 10
hashes = { sha256 = "aa" }

[[packages]]
name = "local"
directory = { path = "pkg", editable = true }
"""
PYPROJECT = """\
[project]
name = "shop"
requires-python = ">=3.10"

[build-system]
requires = ["hatchling>=1", "x @ https://u:p@x.invalid/x.whl"]
build-backend = "hatchling.build"

[tool.uv]
override-dependencies = ["a"]
index = [{ name = "x", url = "https://index.invalid/simple" }]
build-constraint-dependencies = ["hatchling<2"]
"""
REQUIREMENTS = f"""\
-i https://index.invalid/simple
-r other.txt
one==1.0 ; python_version > "3" --hash=sha256:{"a" * 64} \\
    --hash=sha256:{"b" * 64}
two @ https://files.invalid/two-1.0-py3-none-any.whl#sha256={"a" * 64}
-e ./pkg[x]
"""


@_SETTINGS
@example(lock=_DEEP, pyproject=_LONG, version="²")
@example(lock=PYLOCK.encode(), pyproject=_DEEP, version="3.\0")
@given(lock=damaged(PYLOCK), pyproject=damaged(PYPROJECT), version=texts)
def test_pylock(tmp_path: Path, lock: bytes, pyproject: bytes, version: str) -> None:
    """Broken: an odd pylock.toml, or an odd pyproject.toml next to it, causes a traceback."""
    (tmp_path / "pylock.toml").write_bytes(lock)
    (tmp_path / "pyproject.toml").write_bytes(pyproject)
    (tmp_path / ".python-version").write_text(version, errors="replace")
    (tmp_path / "pkg").mkdir(exist_ok=True)
    (tmp_path / "pkg" / "pyproject.toml").write_bytes(pyproject)
    with contextlib.suppress(BuilderError):
        read = read_lock(tmp_path / "pylock.toml", Install())
        (cell,) = parse_matrix(SMALL, source="m").cells
        for door in (lambda: select(read, cell), lambda: choose_python(read, lambda _: cell),
                     lambda: project_name(read),
                     lambda: has_overrides(read), lambda: build_systems(read, ["pkg"])):  # fmt: skip
            with contextlib.suppress(BuilderError):
                door()


@_SETTINGS
@given(lock=damaged(REQUIREMENTS))
def test_requirements(tmp_path: Path, lock: bytes) -> None:
    """Broken: an odd requirements file causes a traceback."""
    (tmp_path / "requirements.txt").write_bytes(lock)
    (tmp_path / "pkg").mkdir(exist_ok=True)

    def found(pins: list[PinnedProject], *_: object) -> list[tuple[IndexedFile, ...]]:
        return [() for _ in pins]

    with contextlib.suppress(BuilderError), mock.patch("builder.lock.requirements.fetch_files", found):
        read = read_lock(tmp_path / "requirements.txt", Install())
        (cell,) = parse_matrix(SMALL, source="m").cells
        select(read, cell)


FILE = {
    "filename": "one-1.0-py3-none-any.whl", "url": "https://files.invalid/one-1.0-py3-none-any.whl", "size": 3,
    "hashes": {"sha256": "a" * 64}, "requires-python": ">=3", "upload-time": "2026-01-01T00:00:00Z", "yanked": False,
}  # fmt: skip
PAGE = _table(meta={"api-version": "1.1"}, name="one", files=[FILE])
HTML = f'<html><body><a href="https://files.invalid/x#sha256={"a" * 64}">one-1.0-py3-none-any.whl</a></body></html>'


@_SETTINGS
@given(
    page=damaged(PAGE, HTML),
    kind=st.sampled_from(
        ["application/vnd.pypi.simple.v1+json", "text/html", "application/vnd.pypi.simple.v1+html", "", "a;b"]
    ),
    odd=headers,
)
def test_index(page: bytes, kind: str, odd: dict[str, str]) -> None:
    """Broken: an odd page of a package index causes a traceback."""
    opened = http.open_session(0, stopped=mock.Mock(is_set=lambda: False))
    for scheme in ("http://", "https://"):
        opened.mount(
            scheme, _Registry({"simple": page, "blobs": b"", "token": b""}, {"Content-Type": kind, **odd}, 200, "all")
        )
    pin = PinnedProject(name="one", version="1.0", hashes={"sha256": frozenset({"a" * 64})})
    with contextlib.suppress(BuilderError), mock.patch.object(http, "open_session", return_value=opened):
        fetch_files([pin], ["https://index.invalid/simple"], AnswerCache(folder=None))


GITLAB = """\
include: [{ local: x.yml }]
variables: { PIP_CACHE_DIR: "$CI_PROJECT_DIR/.cache/pip" }
default:
  image: python:3.12-slim
  cache: { key: x, paths: [.cache/pip, .venv/] }
.base: &base
  before_script:
    - python -m venv .venv
    - . .venv/bin/activate
    - pip install -r requirements.txt
test:
  <<: *base
  extends: .base
  script: ["pytest", !reference [.base, script]]
  artifacts: { paths: [.venv] }
"""


@_SETTINGS
@given(damaged(GITLAB))
def test_gitlab_file(content: bytes) -> None:
    """Broken: an odd .gitlab-ci.yml causes a traceback."""
    with contextlib.suppress(BuilderError):
        adopt(Pipeline(files=(parse_gitlab_file(_text(content), source="x.yml"),)), parse_matrix(SMALL, source="m"))


@_SETTINGS
@given(texts)
def test_words(text: str) -> None:
    """Broken: an odd reference, mirror, variable or line of output causes a traceback."""
    doors = (
        ImageRef.from_str,
        lambda text: Mirrors.from_strs([text]),
        lambda text: Mirrors.from_strs([f"x.y={text}"]),
        redact,
        ImageInputs.from_label,
    )
    for door in doors:
        with contextlib.suppress(BuilderError):
            door(text)


@_SETTINGS
@example("²")
@example("9" * 20)
@given(texts)
def test_variables(text: str) -> None:
    """Broken: an odd value of a variable causes a traceback."""
    value = text.replace("\0", "").encode(errors="replace").decode()
    for name, door in (
        ("SOURCE_DATE_EPOCH", today),
        ("NETRC", read_build_secrets),
        ("SSL_CERT_FILE", read_build_secrets),
    ):
        # The command line reports an OSError, such as that of a name with thousands of characters, as one error too.
        with contextlib.suppress(BuilderError, OSError), mock.patch.dict("os.environ", {name: value}):
            door()


@_SETTINGS
@given(damaged("machine index.invalid login jane password x\ndefault login y password z\nmacdef a\nx\n\n"))
def test_netrc(tmp_path: Path, content: bytes) -> None:
    """Broken: an odd netrc file causes a traceback."""
    (tmp_path / "netrc").write_bytes(content)
    with contextlib.suppress(BuilderError), mock.patch.dict("os.environ", {"NETRC": str(tmp_path / "netrc")}):
        read_build_secrets()
