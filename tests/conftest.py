"""Fixtures for all tests: the repository's files, pinned digests, a clean environment, and one folder per run."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, Final

import pytest

from builder.oci.reference import Digest
from tests.shared import Shared

# What of the surroundings builder listens to; a test that wants one sets it.
_HEEDED = (
    "BUILDER_CACHE_DIR",
    "BUILDER_MAKER",
    "BUILDER_MIRRORS",
    "BUILDX_BUILDER",
    "CI",
    "CI_REGISTRY_IMAGE",
    "NETRC",
    "NO_COLOR",
    "SOURCE_DATE_EPOCH",
    "SSL_CERT_FILE",
)

_SHARED: Final = pytest.StashKey[Shared]()
# Modules whose tests take minutes, longest first: workers start with these and end with the short ones.
_LONG: Final = (
    "test_own_pipeline",
    "test_build",
    "test_layers",
    "test_layer_tree",
    "test_gitlab_pairs",
    "test_canaries",
    "test_component",
    "test_publish",
    "test_gitlab_files",
    "test_reuse",
    "test_remote",
    "test_attestations",
    "test_branches",
    "test_faults",
    "test_publish_faults",
    "test_build_backends",
    "test_jobs",
    "test_status",
    "test_verify",
    "test_job_logins",
)

# Modules that one worker runs, from the first test to the last: they share what takes long to set up, or a folder.
_TOGETHER: Final = ("test_own_pipeline", "test_build", "test_layer_tree", "test_profiles")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--update-golden`."""
    parser.addoption("--update-golden", action="store_true", help="Write tests/golden anew from what is rendered.")


def pytest_configure(config: pytest.Config) -> None:
    """Give the run a folder that all its workers have."""
    given = getattr(config, "workerinput", {}).get("shared")
    config.stash[_SHARED] = Shared(Path(given or tempfile.mkdtemp(prefix="tests-")))


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker of pytest-xdist where the folder is."""
    node.workerinput["shared"] = str(node.config.stash[_SHARED].top)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give each worker a new test when it has done its last, in the order of the collection."""
    from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

    def scope_of(nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        return path if Path(path).stem in _TOGETHER else nodeid

    config.option.loadscopereorder = False
    scheduler = LoadScopeScheduling(config, log)
    scheduler._split_scope = scope_of
    return scheduler


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the folder, and what was made with it, when all workers are done."""
    if not hasattr(config, "workerinput"):
        shared = config.stash[_SHARED]
        shared.end()
        shutil.rmtree(shared.top)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest first."""
    ranks = {name: rank for rank, name in enumerate(_LONG)}
    items.sort(key=lambda item: ranks.get(item.path.stem, len(ranks)))


@pytest.fixture(scope="session")
def shared(pytestconfig: pytest.Config) -> Shared:
    """What all workers of the run share."""
    return pytestconfig.stash[_SHARED]


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    """Whether to write golden files instead of comparing with them."""
    return bool(request.config.getoption("--update-golden"))


@pytest.fixture(scope="session")
def repository_root() -> Path:
    """The checkout with these tests."""
    return Path(__file__).parent.parent


@pytest.fixture
def base_digest() -> Digest:
    """A digest for base images."""
    return Digest(algorithm="sha256", hex="ba5e" * 16)


@pytest.fixture
def uv_digest() -> Digest:
    """A digest for the uv image."""
    return Digest(algorithm="sha256", hex="0123456789abcdef" * 4)


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unset the variables that affect builder."""
    for name in (*_HEEDED, *(name for name in os.environ if name.startswith("UV_"))):
        monkeypatch.delenv(name, raising=False)
