"""What somebody who may push can write into a repository, and what builder makes of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from builder.contract import CELL_LABEL, JOURNAL_LABEL, KEY_LABEL, MANIFEST_TYPE, PUSHED_ANNOTATION
from builder.errors import PublishError, RegistryError
from builder.image.inputs import ImageInputs
from builder.oci.manifest import Manifest, descriptor, digest_of
from builder.oci.reference import ImageRef
from builder.oci.registry import Registries
from builder.release.catalogue import fetch_catalogue
from builder.release.immutable import pushed_at
from builder.release.journal import fetch_journal, journal_of
from tests.unit.test_challenge import Answers, Response, asked

REPOSITORY = ImageRef.from_str("registry.example.com/acme/ci")
DIGEST = "sha256:" + "1" * 64
FORGED = "job 7)\n3.13-slim  1 h  79 MB  promoted\r\x85  by nobody"

pytestmark = pytest.mark.usefixtures("clean_environment")


def with_image(labels: dict[str, str]) -> Registries:
    """A repository, all tags of which name an image with these labels."""
    config = json.dumps({"config": {"Labels": labels}}).encode()
    manifest = json.dumps({"mediaType": MANIFEST_TYPE, "config": descriptor(config), "layers": []}).encode()

    def answer(_: str, url: str) -> Response:
        if "/tags/" in url:
            return 200, {}, b'{"tags": ["3.13-slim"]}'
        if "/manifests/" in url:
            return 200, {"Content-Type": MANIFEST_TYPE, "Docker-Content-Digest": str(digest_of(manifest))}, manifest
        return 200, {}, config

    return asked(Answers(answer))


def with_journal(**fields: Any) -> Registries:
    """A repository with a journal of one promotion."""
    moves = [{"tag": "3.13-slim", "old": None, "new": DIGEST}]
    entry = {"at": "2026-01-01T00:00:00+00:00", "by": "", "complete": True, "moves": moves, **fields}
    return with_image({JOURNAL_LABEL: json.dumps([entry])})


def test_promoter_is_one_line() -> None:
    """Broken: a forged journal writes lines into what people take for builder's output."""
    (promotion,) = fetch_journal(journal_of(REPOSITORY, ""), with_journal(by=FORGED))
    assert promotion.by == "job 7) 3.13-slim 1 h 79 MB promoted by nobody"


def test_time_of_another_zone() -> None:
    """Broken: a time that a machine in another time zone wrote is shown as one of UTC."""
    (promotion,) = fetch_journal(journal_of(REPOSITORY, ""), with_journal(at="2026-01-01T00:00:00+05:00"))
    assert f"{promotion.at:%H:%M}" == "19:00"


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_time_out_of_range(time: str) -> None:
    """Broken: a time before the first year, or after the last, causes a traceback."""
    with pytest.raises(PublishError, match="is not a journal of builder"):
        fetch_journal(journal_of(REPOSITORY, ""), with_journal(at=time))
    manifest = Manifest.of({"mediaType": MANIFEST_TYPE, "annotations": {PUSHED_ANNOTATION: time}})
    assert pushed_at(manifest) is None


@pytest.mark.parametrize(("cell", "key"), [(FORGED, "1" * 64), ("3.13-slim", FORGED), ("3.13-slim", "1" * 63)])
def test_labels_that_builder_does_not_write(cell: str, key: str) -> None:
    """Broken: an image with forged labels writes lines into the list of images."""
    assert fetch_catalogue(REPOSITORY, with_image({CELL_LABEL: cell, KEY_LABEL: key})) == ()
    assert len(fetch_catalogue(REPOSITORY, with_image({CELL_LABEL: "3.13-slim", KEY_LABEL: "1" * 64}))) == 1


@pytest.mark.parametrize("field", ["base", "packages", "settings"])
def test_inputs_that_builder_does_not_write(field: str) -> None:
    """Broken: an image with forged inputs writes lines into what a plan says has changed."""
    good: dict[str, Any] = {
        "cell": "3.13-slim", "python": "3.13", "base": "x", "uv": "x", "packages": {"six": "1.0"}, "settings": {},
        "template": "x",
    }  # fmt: skip
    assert ImageInputs.from_label(json.dumps(good)) is not None
    forged = {**good, field: FORGED if field == "base" else {"six": FORGED}}
    assert ImageInputs.from_label(json.dumps(forged)) is None


def test_words_of_a_registry_are_one_line() -> None:
    """Broken: a registry's error writes lines that look like builder's own."""
    body = json.dumps({"errors": [{"code": "X", "message": "no\nbuilder: all tags were moved"}]}).encode()
    with pytest.raises(RegistryError) as raised:
        asked(Answers(lambda *_: (400, {}, body))).fetch_digest(REPOSITORY.with_tag("3.13-slim"))
    assert "no builder: all tags were moved" in raised.value.what
