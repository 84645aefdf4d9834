"""`builder plan` on locks that not every cell can install, against the registry."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import jsonschema
import pytest

from builder.lock.host import describe_hosts
from builder.lock.preflight import preflight
from builder.lock.source_tree import fetch_source_trees
from tests import locks
from tests.cells import debian
from tests.integration.conftest import Builder
from tests.integration.server import Answer, Request, serving
from tests.locks import package, pure

MATRIX = """\
python = ["3.13"]
base = ["bookworm-slim", "alpine"]

[bases.bookworm-slim]
image = "docker.io/library/python:{python}-slim-bookworm"
family = "debian"

[bases.alpine]
image = "docker.io/library/python:{python}-alpine"
family = "alpine"
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project that cannot be installed on Alpine."""
    (tmp_path / "matrix.toml").write_text(MATRIX, encoding="utf-8")
    locks.write(tmp_path, pure("one"), package("torch", "2.0", "cp313-cp313-manylinux_2_28_x86_64"))
    return tmp_path


def test_good_cells_are_planned(project: Path, builder: Builder) -> None:
    """Broken: one cell that cannot be built keeps the others from being planned, or the exit code hides it."""
    done = builder("plan", cwd=project)
    assert done.returncode == 2
    assert "3.13-bookworm-slim         2            0    " in done.stdout
    assert "torch 2.0 wheel              impossible" in done.stdout
    assert "does not cover the cell 3.13-alpine: no wheel found for package 'torch' 2.0" in done.stderr


def test_good_cells_are_planned_as_json(project: Path, builder: Builder, repository_root: Path) -> None:
    """Broken: scripts do not learn which cells can be built, or the output differs from its schema."""
    done = builder("plan", "--json", cwd=project)
    table = json.loads(done.stdout)
    jsonschema.validate(table, json.loads((repository_root / "docs" / "output.schema.json").read_text("utf-8")))
    assert done.returncode == 2
    assert [cell["name"] for cell in table["cells"]] == ["3.13-bookworm-slim"]
    assert [cell["can_be_built"] for cell in table["preflight"]["cells"]] == [True, False]


def test_build_refuses_all(project: Path, builder: Builder) -> None:
    """Broken: a matrix is built in part, and nobody notices."""
    done = builder("build", cwd=project)
    assert (done.returncode, done.stdout) == (2, "")
    assert "does not cover the cell 3.13-alpine" in done.stderr


def archive(**files: str) -> bytes:
    """An sdist with these files in its folder; `__` in a name stands for the dot."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(f"pkg-1.0/{name.replace('__', '.')}")
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    return content.getvalue()


def backend(name: str, *requires: str) -> str:
    """A pyproject.toml with this build backend."""
    return f'[build-system]\nrequires = {list(requires)}\nbuild-backend = "{name}"\n'


@pytest.mark.parametrize(
    ("content", "missing", "is_pure"),
    [
        (archive(setup__py="", fast__c=""), ("gcc", "libc6-dev"), False),
        (archive(setup__py=""), (), True),
        (archive(pyproject__toml=backend("hatchling.build"), test__c=""), (), True),
        (archive(pyproject__toml=backend("setuptools.build_meta"), fast__pyx=""), ("gcc", "libc6-dev"), False),
        (archive(pyproject__toml=backend("mesonpy")), ("gcc", "libc6-dev"), False),
        (archive(pyproject__toml=backend("maturin")), ("cargo", "gcc", "libc6-dev"), False),
        (
            archive(pyproject__toml=backend("setuptools.build_meta", "setuptools-rust")),
            ("cargo", "gcc", "libc6-dev"),
            False,
        ),
        (archive(pyproject__toml="= 1"), (), True),
        (b"no archive", (), False),
    ],
)
def test_sdists_are_looked_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, missing: tuple[str, ...], is_pure: bool
) -> None:
    """Broken: a build fails for want of a compiler that the sdist could have told of, or plan asks for one in vain."""
    with serving(lambda _: Answer(body=content), monkeypatch) as server:
        each = package("pkg", "1.0", with_sdist=True)
        each["sdist"]["url"] = f"http://{server.host}/pkg-1.0.tar.gz"
        lock = locks.read(tmp_path, each)
        for _ in range(2):
            found = preflight({debian(): lock}, lambda sdists: fetch_source_trees(sdists, tmp_path / "cache"))
            (finding,) = found.cells[0].findings
            assert finding.missing == missing
            assert finding.reason.endswith("it is pure Python") == is_pure
        assert len(server.requests) == (2 if content == b"no archive" else 1)


def test_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: --check-hosts does not tell a host that asks for a credential from one that cannot be reached."""

    def answer(request: Request) -> Answer:
        return Answer(status={"/private": 401, "/denied": 403, "/broken": 500}.get(request.path, 200))

    with serving(answer, monkeypatch) as server:
        urls = {path: f"http://{server.host}/{path}" for path in ("broken", "denied", "open", "private")}
        urls |= {"git": "ssh://git@git.invalid/x", "gone": "http://127.0.0.1:1/"}
        hosts = describe_hosts(urls, {"private"}, ask=True)
    assert [(host.name, host.has_credential, (host.answer or "").split(":")[0]) for host in hosts] == [
        ("broken", False, "fails"),
        ("denied", False, "denies access"),
        ("git", False, "not asked"),
        ("gone", False, "cannot be reached"),
        ("open", False, "answers"),
        ("private", True, "asks for a credential"),
    ]


def test_hosts_are_not_asked_unbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: a plan sends requests to every host that a lock names."""
    with serving(lambda _: Answer(), monkeypatch) as server:
        (host,) = describe_hosts({"one": f"http://{server.host}/"}, (), ask=False)
    assert (host.answer, server.requests) == (None, [])
