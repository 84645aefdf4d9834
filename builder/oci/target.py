"""What a request to a registry is about."""

from __future__ import annotations

from dataclasses import dataclass

from builder.oci.reference import ImageRef


@dataclass(frozen=True, kw_only=True)
class Target:
    """The reference that a request is about. With a mirror, `original` is the reference before the replacement.

    `source` is another repository of the registry, which the request reads from.
    """

    ref: ImageRef
    original: ImageRef
    source: str | None = None

    def __str__(self) -> str:
        return str(self.original) if self.ref == self.original else f"{self.original} (mirror: {self.ref})"

    @property
    def advice(self) -> str:
        """What to do if the registry does not answer; of a mirror, where its name comes from."""
        if self.ref.registry != self.original.registry:
            return (
                f"{self.ref.registry} is a mirror of {self.original.registry} by [mirrors] in the matrix, --mirror or "
                "BUILDER_MIRRORS: correct or remove that entry, or check the network"
            )
        return (
            "check the name and the network; --mirror or [mirrors] names another registry, "
            "SSL_CERT_FILE a CA bundle to trust"
        )
