"""What BuildKit says of an image, provenance and SBOM, and how that is told of the image as it was pushed.

The form is BuildKit's (docs/attestations/attestation-storage.md there): beside the image an index has a manifest whose
layers are in-toto statements about the image's manifest. A pushed image has other digests than the one in the engine,
for its manifest is written anew and its layers may be compressed anew; statements that went along as they are would be
about an image that is nowhere.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from builder.oci.manifest import Manifest, descriptor, encode_json

SUBJECT: Final = "vnd.docker.reference.digest"  # the annotation that says which manifest an attestation is about
Changes = Mapping[str, Mapping[str, Any]]  # digests, `sha256:…`, to what a descriptor has in their place


@dataclass(frozen=True, kw_only=True)
class Attestation:
    """An attestation: `entry` is its place in the index, `blobs` its statements and, last, the manifest's config."""

    entry: Mapping[str, Any]
    manifest: Manifest
    blobs: Mapping[str, bytes]

    def rewritten(self, changes: Changes) -> Attestation:
        """Return the same of an image of which these digests changed, and with them those of the attestation itself."""
        changes = dict(changes)
        blobs = {}
        for digest, content in self.blobs.items():
            told = encode_json(_rewritten(json.loads(content), changes))
            changes[digest] = descriptor(told)
            blobs[changes[digest]["digest"]] = told
        manifest = Manifest(
            content=encode_json(_rewritten(self.manifest.table, changes)), media_type=self.manifest.media_type
        )
        changes[self.entry["digest"]] = descriptor(manifest.content)
        return Attestation(entry=_rewritten(self.entry, changes), manifest=manifest, blobs=blobs)


def _rewritten(value: Any, changes: Changes) -> Any:
    """The value with other digests: in descriptors with size and type, and alone as text, with `sha256:` or without."""
    if isinstance(value, Mapping):
        told = {name: _rewritten(each, changes) for name, each in value.items()}
        digest = value.get("digest")
        return {**told, **changes[digest]} if isinstance(digest, str) and digest in changes else told
    if isinstance(value, list):
        return [_rewritten(each, changes) for each in value]
    if isinstance(value, str):
        for prefix in ("", "sha256:"):
            if prefix + value in changes:
                return str(changes[prefix + value]["digest"]).removeprefix(prefix)
    return value
