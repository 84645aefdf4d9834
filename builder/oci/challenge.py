"""The answer of a registry that wants to know who asks: a challenge, and the token that meets it.

Docker registry documentation, "Token Authentication Specification"; RFC 7235.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import requests

from builder.errors import RegistryError
from builder.http import Origin
from builder.parse import Document, parse_or_raise
from builder.redaction import keep_secret

_PARAMETER = re.compile(r'(?P<key>[a-z]+)="(?P<value>[^"]*)"')
_HINT: Final = "a registry must name a token server under https; report it to whoever runs the registry"


class _TokenAnswer(Document):
    """The answer of a token server."""

    token: str | None = None
    access_token: str | None = None


@dataclass(frozen=True, kw_only=True)
class Challenge:
    """A demand for a password. `realm` is the URL of the token server to show it to; None if it is the registry."""

    realm: str | None
    service: str

    @classmethod
    def parse(cls, header: str, home: Origin, *, registry: str) -> Challenge:
        """Parse a WWW-Authenticate header from the origin `home`.

        Raises RegistryError if there is no challenge, or if its token server may not see the registry's password: one
        with less protection than the registry, or on another host without TLS.
        """
        if header.lower().startswith("basic"):
            return cls(realm=None, service="")
        parameters = {match["key"]: match["value"] for match in _PARAMETER.finditer(header)}
        realm = parameters.get("realm")
        if realm is None:
            raise RegistryError(f"{registry} denies access without a challenge")
        try:
            server = Origin.of(realm)
        except ValueError as error:
            raise RegistryError(f"{registry} names the token server {realm!r}: {error}", hint=_HINT) from error
        if not home.may_lead_to(server) or (server.scheme == "http" and server.host != home.host):
            raise RegistryError(f"{registry} would have its password sent in clear, to {server}", hint=_HINT)
        return cls(realm=realm, service=parameters.get("service", ""))


def parse_token(answer: requests.Response, fault: RegistryError) -> str:
    """Return the token in a token server's answer; raise the given error, extended by what is wrong."""
    body = parse_or_raise(_TokenAnswer, answer.content, fault)
    token = body.token or body.access_token or ""
    keep_secret(token)
    if not re.fullmatch(r"[\x21-\x7e]+", token):  # what may stand in a header
        raise fault
    return token
