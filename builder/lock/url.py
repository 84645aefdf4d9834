"""URLs in locks."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

from builder.errors import LockError


def without_credentials(url: str) -> str:
    """Return the URL without user name and password, which must never get into an image."""
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise LockError(f"{url!r} is not a URL: {error}") from error
    user, at, host = parts.netloc.rpartition("@")
    if at and parts.scheme.endswith("ssh"):
        host = f"{user.partition(':')[0]}@{host}"  # with ssh, the user name is part of the address and not secret
    return urlunsplit(parts._replace(netloc=host))
