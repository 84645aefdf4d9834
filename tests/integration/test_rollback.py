"""`builder rollback` when it matters most: with a broken lock, no base registry, no engine and no matrix."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.integration.conftest import own_name
from tests.integration.nightly import Nightly, standing
from tests.integration.registries import Registry, an_open_registry
from tests.integration.seeds import Seeds, published_once

pytestmark = pytest.mark.integration

__all__ = ["an_open_registry", "published_once"]

TAG = "3.13-slim"
ONE = ("--only", "python=3.13")
NOTHING_ELSE = {
    "DOCKER_HOST": "unix:///run/no-such-docker.sock",
    "BUILDER_MIRRORS": "docker.io=localhost:1,ghcr.io=localhost:1",
}


@pytest.fixture
def promoted_twice(seeds: Seeds, open_registry: Registry, tmp_path: Path, request: pytest.FixtureRequest) -> Nightly:
    """A project whose tag was promoted twice."""
    made = Nightly(folder=tmp_path, repository=f"{open_registry.host}/{own_name(request)}", env={})
    made.matrix()
    for idna in ("3.10", "3.11"):
        made.lock(idna=idna)
        seeds.publish(made, *ONE, tags=[TAG])
    return made


def digest(nightly: Nightly) -> str | None:
    """What the moving tag names now."""
    host, _, path = nightly.repository.partition("/")
    return standing(host, path, [TAG])[TAG]


def test_rollback_needs_the_repository_alone(promoted_twice: Nightly) -> None:
    """Broken: with a broken lock, or while a base registry is down, nobody can roll back."""
    new = digest(promoted_twice)
    (promoted_twice.folder / "uv.lock").write_text("this is not a lock [")
    dry = promoted_twice.builder("rollback", "--dry-run", env=NOTHING_ELSE)
    assert dry.returncode == 0, dry.stderr
    (line,) = dry.stdout.splitlines()
    (planned,) = json.loads(promoted_twice.builder("rollback", "--dry-run", "--json", env=NOTHING_ELSE).stdout)[
        "promotion"
    ]
    assert line.startswith(f"move            {promoted_twice.repository}:{TAG}: {new} → sha256:")
    assert digest(promoted_twice) == new

    done = promoted_twice.builder("rollback", "--json", env=NOTHING_ELSE)
    assert done.returncode == 0, done.stderr
    (move,) = json.loads(done.stdout)["promotion"]
    assert (move["tag"], move["old"]) == (TAG, new)
    assert move == planned
    assert line.endswith(move["new"])
    assert digest(promoted_twice) == move["new"]


def test_rollback_without_a_matrix(promoted_twice: Nightly) -> None:
    """Broken: a broken matrix prevents a rollback, although the repository can be named."""
    new = digest(promoted_twice)
    (promoted_twice.folder / "matrix.toml").write_text("broken = [")
    refused = promoted_twice.builder("rollback", env=NOTHING_ELSE)
    assert refused.returncode == 2
    assert "matrix.toml is not TOML" in refused.stderr
    done = promoted_twice.builder("rollback", "--repository", promoted_twice.repository, env=NOTHING_ELSE)
    assert done.returncode == 0, done.stderr
    assert digest(promoted_twice) not in {None, new}


def test_nothing_to_roll_back(open_registry: Registry, tmp_path: Path) -> None:
    """Broken: a mistyped repository looks like a rollback that worked."""
    nightly = Nightly(folder=tmp_path, repository=f"{open_registry.host}/nobody", env={})
    done = nightly.builder("rollback", "--repository", nightly.repository, env=NOTHING_ELSE)
    assert done.returncode == 4
    assert "has no promotion to undo" in done.stderr
    missing = nightly.builder("rollback", env={**NOTHING_ELSE, "CI_REGISTRY_IMAGE": ""})
    assert missing.returncode == 2
    assert "there is no repository to roll back" in missing.stderr
