"""`builder ls`, `show` and `doctor`: what they say of tags, packages and this machine."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from builder.cli.output.look import (
    catalogue_json,
    catalogue_table,
    contents_json,
    contents_table,
    diagnoses_json,
    diagnosis_line,
)
from builder.contract import CELL_LABEL, KEY_LABEL, PUSHED_ANNOTATION
from builder.doctor import Diagnosis
from builder.engine.history import layers_in
from builder.errors import EngineError
from builder.image.inputs import ImageInputs
from builder.oci.manifest import ImageConfig, Manifest, digest_of
from builder.oci.reference import Digest, ImageRef
from builder.oci.registry import Registries
from builder.release.catalogue import fetch_catalogue
from builder.release.contents import Contents, ShownLayer, packages_of, shown_layer
from builder.release.journal import Move, Promotion
from tests.plans import REPOSITORY

NOW = datetime(2026, 1, 10, tzinfo=timezone.utc)
KEYS = {name: name * 64 for name in "abc"}


def manifest(key: str) -> Manifest:
    """The manifest of an image with this key, pushed a day ago for each letter after `a`."""
    pushed = NOW - timedelta(days=ord(key) - ord("a") + 1)
    layer = {"digest": str(digest_of(key.encode())), "size": 5_000_000}
    return Manifest.of(
        {
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "layers": [layer],
            "config": {"digest": str(digest_of(f"config {key}".encode())), "size": 1},
            "annotations": {PUSHED_ANNOTATION: pushed.isoformat()},
        }
    )  # fmt: skip


class Shelf(Registries):
    """A repository in memory, instead of a registry's answers."""

    def __init__(self, tags: dict[str, str]) -> None:
        self.tags = tags

    def fetch_tags(self, ref: ImageRef) -> tuple[str, ...]:
        """See `Registries`."""
        return tuple(sorted(self.tags))

    def map(self, function: Any, items: Any) -> list[Any]:
        """See `Registries`; one after the other."""
        return [function(item) for item in items]

    def fetch_manifest(self, ref: ImageRef) -> Manifest | None:
        """See `Registries`."""
        return manifest(self.tags[str(ref.tag)])

    def fetch_config(self, ref: ImageRef, manifest: Manifest) -> ImageConfig:
        """See `Registries`."""
        key = self.tags[str(ref.tag)]
        labels = {CELL_LABEL: "3.12-slim", KEY_LABEL: KEYS[key]} if key != "c" or "x" not in str(ref.tag) else {}
        return ImageConfig.model_validate({"config": {"Labels": labels}})


def test_catalogue(monkeypatch: pytest.MonkeyPatch, repository_root: Path) -> None:
    """Broken: `ls` has a tag with another status, age or promoter than the journal says, or a foreign one."""
    tags = {"3.12-slim": "b", "latest": "a", "x": "c", "builder-journal": "a"}
    tags |= {f"3.12-slim-{KEYS[key][:12]}": key for key in "abc"}
    old, new = manifest("a").digest, manifest("b").digest
    moves = (Move(tag="3.12-slim", old=old, new=new), Move(tag="latest", old=None, new=new))
    promotions = [Promotion(at=NOW - timedelta(hours=5), moves=moves, complete=True, by="job 7")]
    monkeypatch.setattr("builder.release.catalogue.fetch_journal", lambda *_: promotions)
    listed = fetch_catalogue(REPOSITORY, Shelf(tags))
    found = {each.tag: (each.status, each.by) for each in listed}
    assert found == {
        "3.12-slim": ("promoted", "job 7"), "latest": ("foreign", ""),
        "3.12-slim-aaaaaaaaaaaa": ("in-use", ""), "3.12-slim-bbbbbbbbbbbb": ("in-use", ""),
        "3.12-slim-cccccccccccc": ("unused", ""),
    }  # fmt: skip
    table = catalogue_table(listed, NOW, everything=False).splitlines()
    assert table[0].split() == ["TAG", "AGE", "SIZE", "DIGEST", "KEY", "STATUS", "PROMOTED", "BY"]
    assert "  5 h  5.0 MB  " in table[1]
    assert len(table) == 3
    assert "  3 d  " in catalogue_table(listed, NOW, everything=True)
    valid(catalogue_json(REPOSITORY, listed), "catalogue", repository_root)


def test_packages_by_size() -> None:
    """Broken: a package has the size of its whole shared layer, or one without a known size is called empty."""
    layers = [
        ShownLayer(kind="wheels", digest="sha256:0", size=900, packages=("numpy",)),
        ShownLayer(kind="wheels", digest="sha256:1", size=300, packages=("six", "idna")),
        ShownLayer(kind="wheels", digest="sha256:2", size=70, packages=("a", "b")),
    ]
    versions = {"six": "1", "numpy": "2", "idna": "3", "a": "4", "b": "5"}
    found = packages_of(layers, versions, {"six": 100, "idna": 200, "a": 1})
    assert [(each.name, each.size, each.is_shared) for each in found] == [
        ("numpy", 900, False), ("idna", 200, True), ("six", 100, True), ("a", None, False), ("b", None, False),
    ]  # fmt: skip


def test_contents(repository_root: Path) -> None:
    """Broken: `show` does not say what takes the space, or its JSON differs from the schema."""
    layers = (
        ShownLayer(kind="base", digest="sha256:" + "0" * 64, size=30_000_000),
        ShownLayer(kind="wheels", digest="sha256:" + "1" * 64, size=10_000_000, packages=("numpy",)),
    )
    inputs = ImageInputs(
        cell="3.12-slim", python="3.12", base="python:3.12", uv="uv:1", packages={"numpy": "2.0"}, settings={},
        template="",
    )  # fmt: skip
    contents = Contents(
        ref=REPOSITORY.with_tag("3.12-slim"), digest=Digest.from_str("sha256:" + "2" * 64), inputs=inputs,
        cell="3.12-slim", key="a" * 64, layers=layers, packages=packages_of(layers, inputs.packages, {}),
    )  # fmt: skip
    table = contents_table(contents)
    assert "3.12-slim  40.0 MB, 1 package, 2 layers" in table
    assert "numpy    2.0      10.0 MB  25.0 %" in table
    assert "\nbase    30.0 MB  000000000000\n" in table
    valid(contents_json(contents), "contents", repository_root)
    here = (shown_layer("builder: wheels: numpy", "", 90_000_000), shown_layer("RUN apt-get install", "", 1_000_000))
    local = replace(contents, layers=here, packages=packages_of(here, inputs.packages, {}), unpacked=True)
    assert "3.12-slim  91.0 MB unpacked, 1 package, 2 layers" in contents_table(local)
    assert [(layer.kind, layer.packages) for layer in here] == [("wheels", ("numpy",)), ("base", ())]
    valid(contents_json(local), "contents", repository_root)


def test_layers_that_an_engine_tells() -> None:
    """Broken: settings count as layers, builder's own small ones do not, or an odd answer is a traceback."""
    fault = EngineError("odd")
    answer = [
        {"CreatedBy": "builder: notes", "Size": 0}, {"CreatedBy": "LABEL a=b", "Size": 0}, {"CreatedBy": "x", "Size": 7}
    ]  # fmt: skip
    assert [(layer.title, layer.size) for layer in layers_in(answer, fault)] == [("x", 7), ("builder: notes", 0)]
    odd_answers: list[Any] = [None, {}, [1], [{"Size": "many"}]]
    for odd in odd_answers:
        with pytest.raises(EngineError, match="odd"):
            layers_in(odd, fault)


def test_diagnoses(repository_root: Path) -> None:
    """Broken: a verdict has no remedy beside it, or the JSON differs from the schema."""
    good = Diagnosis(subject="uv", verdict="ok", found="0.1")
    bad = Diagnosis(subject="clock", verdict="failed", found="400 s behind", remedy="set it")
    assert diagnosis_line(good) == "ok      uv                    0.1"
    assert diagnosis_line(bad).splitlines()[1].strip() == "→ set it"
    valid(diagnoses_json([good, bad]), "diagnoses", repository_root)


def valid(document: dict[str, Any], name: str, repository_root: Path) -> None:
    """Validate a document by the part of the documented schema with this name."""
    schema = json.loads((repository_root / "docs" / "output.schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(document, {"$ref": f"#/$defs/{name}", "$defs": schema["$defs"]})
