"""A short soak; `make soak` takes minutes. See `tests.integration.soak`."""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path

import pytest

from tests.integration.conftest import docker, images_of
from tests.integration.faults import between
from tests.integration.registries import running
from tests.integration.soak import VERSIONS, Soak

pytestmark = pytest.mark.integration

SECONDS = float(os.environ.get("SOAK") or 15)
SEED = int(os.environ.get("SEED") or secrets.randbelow(1 << 32))
SHORT = ("one", "tomli", "iniconfig")  # four images


def test_soak(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Broken: kills, faults and runs at the same time leave tags that nobody promoted, or make a process lie."""

    def say(text: str) -> None:
        with capfd.disabled():
            sys.stdout.write(f"{text}\n")
            sys.stdout.flush()

    folder = tmp_path / "registry"
    folder.mkdir()
    with running(folder) as registry, between(registry.host) as proxy:
        names = tuple(VERSIONS) if "SOAK" in os.environ else SHORT
        soak = Soak(
            proxy=proxy, host=registry.host, path="soak/ci", folder=tmp_path, seed=SEED, names=names,
            say=say if "SOAK" in os.environ else lambda _: None,
        )  # fmt: skip
        soak.say(f"seed {SEED}")
        try:
            soak.prepare()
            soak.run(SECONDS)
        finally:
            for tag in images_of(f"{proxy.host}/soak/ci"):
                docker("image", "rm", "--force", f"{proxy.host}/soak/ci:{tag}")
        soak.say(f"{soak.steps} steps")
