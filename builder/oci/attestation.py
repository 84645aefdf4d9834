"""BuildKit's attestations of an image, provenance and SBOM, and their rewriting for the image as it is pushed.

The format is BuildKit's (its docs/attestations/attestation-storage.md): next to the image, an index lists a manifest
whose layers are in-toto statements about the image's manifest. Pushing writes a new manifest and may compress the
layers again, so that the pushed image has other digests than the one in the engine; unchanged statements would be
about an image that does not exist anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from builder.errors import EngineError
from builder.oci.manifest import Manifest, descriptor, encode_json
from builder.parse import MalformedError, parse_value

SUBJECT: Final = "vnd.docker.reference.digest"  # annotation: the digest of the attested manifest
Changes = Mapping[str, Mapping[str, Any]]  # old digest `sha256:…` to the fields that replace it in a descriptor
_MALFORMED: Final = EngineError(
    "the builder wrote an attestation that is not JSON", hint="update buildx and its builder"
)


@dataclass(frozen=True, kw_only=True)
class Attestation:
    """An attestation: its `entry` in the index, its manifest, and its `blobs` by digest.

    The blobs are the statements and, last, the manifest's config.
    """

    entry: Mapping[str, Any]
    manifest: Manifest
    blobs: Mapping[str, bytes]

    def rewritten(self, changes: Changes) -> Attestation:
        """Return the attestation with these digests replaced, and its own, which change with its content.

        Raises EngineError if a statement is not a JSON object.
        """
        changes = dict(changes)
        blobs = {}
        for digest, content in self.blobs.items():
            try:
                statement = parse_value(dict[str, Any], content)
            except MalformedError as error:
                raise EngineError(f"{_MALFORMED.what}: {error}", hint=_MALFORMED.hint) from error
            new_content = encode_json(_rewritten(statement, changes))
            changes[digest] = descriptor(new_content)
            blobs[changes[digest]["digest"]] = new_content
        manifest = Manifest(
            content=encode_json(_rewritten(self.manifest.table, changes)), media_type=self.manifest.media_type
        )
        changes[self.entry["digest"]] = descriptor(manifest.content)
        return Attestation(entry=_rewritten(self.entry, changes), manifest=manifest, blobs=blobs)


def _rewritten(value: Any, changes: Changes) -> Any:
    """Replace digests in a JSON value: in descriptors with size and type, in strings with or without `sha256:`."""
    if isinstance(value, Mapping):
        table = {name: _rewritten(item, changes) for name, item in value.items()}
        digest = value.get("digest")
        return {**table, **changes[digest]} if isinstance(digest, str) and digest in changes else table
    if isinstance(value, list):
        return [_rewritten(item, changes) for item in value]
    if isinstance(value, str):
        for prefix in ("", "sha256:"):
            if prefix + value in changes:
                return str(changes[prefix + value]["digest"]).removeprefix(prefix)
    return value
