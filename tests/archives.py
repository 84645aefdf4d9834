"""Saved images (`docker save`) for tests: tars in the OCI layout, or in Docker's own older layout."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Files = Mapping[str, bytes]

_INDEX = "application/vnd.oci.image.index.v1+json"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def layer(files: Files, *, packed: Callable[[bytes], bytes] = gzip.compress) -> bytes:
    """A layer with these files, a folder and a link."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        folder = tarfile.TarInfo("etc")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for name, content in files.items():
            _add(tar, name, content)
        link = tarfile.TarInfo("etc/link")
        link.type, link.linkname = tarfile.SYMTYPE, "nowhere"
        tar.addfile(link)
    return packed(buffer.getvalue())


def history(*steps: str, empty: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The history of these steps; those in `empty` have no layer."""
    return [{"created_by": step, **({"empty_layer": True} if step in empty else {})} for step in steps]


def oci(path: Path, *layers: bytes, steps: Sequence[Mapping[str, Any]] = (), nested: bool = False) -> Path:
    """Write an OCI layout; if nested, with another index in it and an attestation before the image."""
    blobs: dict[str, bytes] = {}

    def put(content: bytes, media_type: str, **more: Any) -> dict[str, Any]:
        digest = "sha256:" + hashlib.sha256(content).hexdigest()
        blobs["blobs/" + digest.replace(":", "/")] = content
        return {"mediaType": media_type, "digest": digest, "size": len(content), **more}

    def put_json(table: Mapping[str, Any], media_type: str, **more: Any) -> dict[str, Any]:
        return put(json.dumps({"mediaType": media_type, **table}).encode(), media_type, **more)

    config = put(json.dumps({"history": list(steps)}).encode(), "application/vnd.oci.image.config.v1+json")
    manifest = put_json({"config": config, "layers": [put(each, "layer") for each in layers]}, _MANIFEST)
    if nested:
        attestation = put_json(
            {"config": config, "layers": []},
            _MANIFEST,
            annotations={"vnd.docker.reference.type": "attestation-manifest"},
        )
        manifest = put_json({"manifests": [attestation, manifest]}, _INDEX)
    blobs["index.json"] = json.dumps({"manifests": [manifest]}).encode()
    return _write(path, blobs)


def without(path: Path, *contents: bytes) -> Path:
    """Remove the members with these contents from a tar, as an engine that lacks them would."""
    with tarfile.open(path) as tar:
        members = {entry.name: file.read() for entry in tar if (file := tar.extractfile(entry))}
    return _write(path, {name: content for name, content in members.items() if content not in contents})


def docker(path: Path, *layers: bytes, steps: Sequence[Mapping[str, Any]] = ()) -> Path:
    """Write Docker's own layout."""
    members = {f"{number}/layer.tar": content for number, content in enumerate(layers)}
    manifest = [{"Config": "config.json", "Layers": list(members), "RepoTags": ["x:1"]}]
    tables = {"manifest.json": manifest, "config.json": {"history": list(steps)}}
    return _write(path, {**members, **{name: json.dumps(table).encode() for name, table in tables.items()}})


def _write(path: Path, members: Files) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            _add(tar, name, content)
    return path


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))
