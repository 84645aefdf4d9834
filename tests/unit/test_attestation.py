"""Attestations of an image are rewritten for the image as it is pushed."""

from __future__ import annotations

import json
from typing import Any

from builder.contract import INDEX_TYPES
from builder.oci.attestation import Attestation
from builder.oci.manifest import Manifest, descriptor, digest_of, encode_json

OLD_IMAGE, NEW_IMAGE = "sha256:" + "0a" * 32, "sha256:" + "1a" * 32
OLD_LAYER, NEW_LAYER = "sha256:" + "0b" * 32, "sha256:" + "1b" * 32
OTHER = "sha256:" + "0c" * 32
GZIP, ZSTD = "application/vnd.oci.image.layer.v1.tar+gzip", "application/vnd.oci.image.layer.v1.tar+zstd"
CHANGES = {
    OLD_IMAGE: {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": NEW_IMAGE, "size": 7},
    OLD_LAYER: {"mediaType": ZSTD, "digest": NEW_LAYER, "size": 5},
}
STATEMENT = {
    "subject": [{"name": "pkg:docker/x", "digest": {"sha256": OLD_IMAGE.partition(":")[2]}}],
    "predicate": {
        "materials": [{"uri": "pkg:docker/base", "digest": {"sha256": OTHER.partition(":")[2]}}],
        "layers": [[{"mediaType": GZIP, "digest": OLD_LAYER, "size": 9}]],
    },
}


def attestation() -> Attestation:
    """An attestation as BuildKit writes it."""
    statement = encode_json(STATEMENT)
    config = encode_json({"rootfs": {"diff_ids": [str(digest_of(statement))]}})
    table = {
        "config": {"mediaType": "config", **descriptor(config)},
        "layers": [{"mediaType": "in-toto", **descriptor(statement), "annotations": {"predicate": "provenance"}}],
    }
    manifest = Manifest(content=encode_json(table), media_type="application/vnd.oci.image.manifest.v1+json")
    return Attestation(
        entry={**descriptor(manifest.content), "annotations": {"vnd.docker.reference.digest": OLD_IMAGE}},
        manifest=manifest,
        blobs={str(digest_of(statement)): statement, str(digest_of(config)): config},
    )


def test_statement_is_about_the_pushed_image() -> None:
    """Broken: a statement names an image, or layers, that are not in the registry."""
    statement: dict[str, Any] = json.loads(next(iter(attestation().rewritten(CHANGES).blobs.values())))
    assert statement["subject"][0]["digest"] == {"sha256": NEW_IMAGE.partition(":")[2]}
    assert statement["predicate"]["layers"] == [[CHANGES[OLD_LAYER]]]
    assert statement["predicate"]["materials"] == STATEMENT["predicate"]["materials"]  # type: ignore[index]


def test_every_digest_on_the_way_is_true() -> None:
    """Broken: a registry rejects the attestation, or a client finds other content under a digest."""
    told = attestation().rewritten(CHANGES)
    (statement, said), (config, kept) = told.blobs.items()
    assert told.entry["annotations"] == {"vnd.docker.reference.digest": NEW_IMAGE}
    assert told.entry["digest"] == str(told.manifest.digest)
    assert told.entry["size"] == len(told.manifest.content)
    assert statement == str(digest_of(said))
    assert config == str(digest_of(kept))
    assert told.manifest.table["config"] == {"mediaType": "config", "digest": config, "size": len(kept)}
    (layer,) = told.manifest.table["layers"]
    assert layer == {
        "mediaType": "in-toto", "digest": statement, "size": len(said), "annotations": {"predicate": "provenance"},
    }  # fmt: skip
    assert json.loads(kept)["rootfs"]["diff_ids"] == [statement]


def test_image_of_an_index_comes_first() -> None:
    """Broken: if an index lists its attestation first, builder reads labels and layers from that."""
    entries = [
        {"digest": OTHER, "size": 1, "annotations": {"vnd.docker.reference.type": "attestation-manifest"}},
        {"digest": OLD_IMAGE, "size": 1},
    ]
    index = Manifest(content=encode_json({"manifests": entries}), media_type=INDEX_TYPES[0])
    assert [str(child) for child in index.children] == [OLD_IMAGE, OTHER]
