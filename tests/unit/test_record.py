"""The record of verified images: what it takes for one, and what it does not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from builder.image.render import RenderedImage, render
from builder.oci.reference import Digest
from builder.verify.checks import CHECKS
from builder.verify.record import EngineImage, find_verified
from tests.locks import pure
from tests.matrices import SMALL
from tests.plans import plan_of

IMAGE = "sha256:" + "ab" * 32
PASSED = ", ".join(f'{{"name": "{name}", "verdict": "passed", "evidence": "fine", "seconds": 0.5}}' for name in CHECKS)

FAILED = f'{{"checks": [{PASSED.replace("passed", "failed", 1)}]}}'


@dataclass(frozen=True)
class OneImage:
    """An engine with one image; see `Engine`."""

    image: str = IMAGE

    def find_image_id(self, _: str) -> str:
        """Its id, whatever the tag."""
        return self.image


@pytest.fixture
def rendered(tmp_path: Path, base_digest: Digest, uv_digest: Digest) -> RenderedImage:
    """An image with one package."""
    return render(plan_of(tmp_path, SMALL, pure("one"), base_digest=base_digest, uv_digest=uv_digest))


def found(rendered: RenderedImage, folder: Path, record: str | bytes, engine: Any = OneImage()) -> EngineImage | None:
    """What is found with this record."""
    content = record if isinstance(record, bytes) else record.encode()
    path = folder / rendered.key / f"{IMAGE.removeprefix('sha256:')}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return find_verified(rendered, engine, folder)


def test_recorded_image_is_found(rendered: RenderedImage, tmp_path: Path) -> None:
    """Broken: an image that was verified is built and verified again."""
    image = found(rendered, tmp_path, f'{{"checks": [{PASSED}]}}')
    assert image is not None
    assert str(image.digest) == IMAGE
    assert [check.name for check in image.checks] == list(CHECKS)


@pytest.mark.parametrize(
    "record",
    [
        "", "[]", "null", "{", "{}", '{"checks": "all"}', '{"checks": []}', '{"checks": ["uv-pip"]}', b"\xff", FAILED,
        "[" * 1000,
    ],
    ids=range(11),
)  # fmt: skip
def test_other_records_vouch_for_nothing(rendered: RenderedImage, tmp_path: Path, record: str | bytes) -> None:
    """Broken: a record that is damaged, or of fewer checks, vouches for the image."""
    assert found(rendered, tmp_path, record) is None


def test_record_of_another_image(rendered: RenderedImage, tmp_path: Path) -> None:
    """Broken: another image under the same tag counts as verified."""
    engine: Any = OneImage("sha256:" + "cd" * 32)
    assert found(rendered, tmp_path, f'{{"checks": [{PASSED}]}}', engine) is None


def test_no_record(rendered: RenderedImage, tmp_path: Path) -> None:
    """Broken: an image that nobody verified counts as verified, or a missing folder is an error."""
    engine: Any = OneImage()
    assert find_verified(rendered, engine, tmp_path / "none") is None
