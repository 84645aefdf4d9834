"""Immutable tags: the first image that is pushed under one keeps it, whoever else pushes at the same time."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, Final

from builder.contract import CHECKS_ANNOTATION, KEY_LABEL, PUSHED_ANNOTATION
from builder.errors import PublishError, RegistryError
from builder.oci.manifest import Manifest
from builder.oci.reference import Digest, ImageRef
from builder.oci.registry import Registries
from builder.parse import MalformedError, parse_value
from builder.redaction import redact
from builder.release.state import fetch_image_config
from builder.verify.inside import Check

_EVIDENCE: Final = 500  # characters of a check's evidence that are kept
_SETTLE: Final = 0.5  # seconds until another machine's tag, put at the same time, is there


def put_immutable(ref: ImageRef, key: str, manifest: Manifest, registries: Registries) -> Digest:
    """Put the manifest, with the time, under the tag unless the tag exists; return the digest that the tag names.

    The time is that of `with_time`, if the manifest has none yet.
    If machines put images with the same key at the same time, all return the one with the earliest time. Raises
    PublishError if the tag names an image with another key.
    """
    own = manifest if pushed_at(manifest) else with_time(manifest)
    is_new = registries.fetch_digest(ref) is None
    if is_new:
        _put_if_absent(ref, own, registries)
        registries.pause(_SETTLE)
    standing = registries.fetch_manifest(ref)
    if is_new and standing and _is_first(own, standing) and _has_key(ref, key, registries):
        registries.put_manifest(ref, own)
        standing = registries.fetch_manifest(ref)
    if standing is None:
        raise RegistryError(f"{ref.registry} did not store what was pushed as {ref}", hint="try again")
    if standing.digest != own.digest and not _has_key(ref, key, registries):
        raise PublishError(
            f"{ref.familiar} already exists but was built from different inputs: {standing.digest}, not {own.digest}",
            hint="another tool uses this tag: choose another repository for the images",
        )
    return standing.digest


def pushed_at(manifest: Manifest) -> datetime | None:
    """When the image was pushed under its immutable tag, by the clock of the machine that did; None if unknown."""
    try:
        time = datetime.fromisoformat((manifest.body.annotations or {}).get(PUSHED_ANNOTATION, ""))
        return time.astimezone(timezone.utc) if time.tzinfo else None
    except (ValueError, OverflowError):
        return None


def with_time(manifest: Manifest) -> Manifest:
    """The manifest with the time now, when it is pushed: an annotation, by which it has another digest."""
    table: Mapping[str, Any] = manifest.table
    now = datetime.now(timezone.utc).isoformat(timespec="microseconds")
    return Manifest.of({**table, "annotations": {**(table.get("annotations") or {}), PUSHED_ANNOTATION: now}})


def with_checks(manifest: Manifest, checks: Sequence[Check]) -> Manifest:
    """The manifest with the results of the image's checks, for people to read: an annotation, like its time."""
    table: Mapping[str, Any] = manifest.table
    results = [{**check.model_dump(), "evidence": redact(check.evidence)[:_EVIDENCE]} for check in checks]
    text = json.dumps(results, separators=(",", ":"))
    return Manifest.of({**table, "annotations": {**(table.get("annotations") or {}), CHECKS_ANNOTATION: text}})


def checks_of(manifest: Manifest) -> tuple[Check, ...]:
    """The results that were pushed with an image; none if there are none, or nobody understands them.

    Whoever may push may write them: they are evidence for people, and nothing decides by them.
    """
    try:
        return parse_value(tuple[Check, ...], (manifest.body.annotations or {}).get(CHECKS_ANNOTATION, ""))
    except MalformedError:
        return ()


def _put_if_absent(ref: ImageRef, manifest: Manifest, registries: Registries) -> None:
    try:
        registries.put_manifest(ref, manifest, if_absent=True)
    except RegistryError:
        if registries.fetch_digest(ref) is None:  # otherwise the registry keeps the first, as it should
            raise


def _has_key(ref: ImageRef, key: str, registries: Registries) -> bool:
    return fetch_image_config(ref, registries).labels.get(KEY_LABEL) == key


def _is_first(own: Manifest, other: Manifest) -> bool:
    """Whether the own image was pushed before another one; each side decides alike."""
    theirs = pushed_at(other)
    return theirs is not None and (pushed_at(own), str(own.digest)) < (theirs, str(other.digest))
