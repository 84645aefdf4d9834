"""What all tests share: the repository's own files, pinned digests, and a clean environment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from builder.oci.reference import Digest

# What of the surroundings builder listens to; a test that wants one sets it.
_HEEDED = (
    "BUILDER_CACHE_DIR",
    "BUILDER_MIRRORS",
    "BUILDX_BUILDER",
    "CI",
    "CI_REGISTRY_IMAGE",
    "NETRC",
    "NO_COLOR",
    "SOURCE_DATE_EPOCH",
    "SSL_CERT_FILE",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--update-golden`."""
    parser.addoption("--update-golden", action="store_true", help="Write tests/golden anew from what is rendered.")


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    """Whether golden files are to be written rather than compared."""
    return bool(request.config.getoption("--update-golden"))


@pytest.fixture(scope="session")
def repository_root() -> Path:
    """The checkout that these tests lie in."""
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
    """Take away the variables that change what builder does."""
    for name in (*_HEEDED, *(name for name in os.environ if name.startswith("UV_"))):
        monkeypatch.delenv(name, raising=False)
