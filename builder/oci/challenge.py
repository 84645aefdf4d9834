"""The answer of a registry that wants to know who asks: its challenges, and what meets them.

Docker registry documentation, "Token Authentication Specification" and "OAuth2 Token Authentication"; RFC 9110, 11.6.1.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

import requests

from builder.errors import RegistryError
from builder.http import ANSWER_BYTES, ANSWER_SECONDS, TEMPORARY, Origin, Session, keep_authorization, status_of
from builder.oci.credentials import IDENTITY_USER, credentials_for
from builder.parse import Document, parse_or_raise
from builder.redaction import keep_secret

_LONGEST: Final = 8 << 10  # characters of a challenge
_SPACE: Final = re.compile(r"[\s,]*")
_WORD: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(r'\s*=\s*(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>[^\s",=][^\s",]*))')
_TOKEN68: Final = re.compile(r"[ ]+[A-Za-z0-9._~+/-]+=*(?=\s*(?:,|$))")
_HINT: Final = "a registry must name a token server under https; report it to whoever runs the registry"


class TokenServerBusyError(Exception):
    """The token server failed for a temporary reason; `str()` says which."""


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
        """Parse a WWW-Authenticate header from the origin `home`; of several challenges, one by token is preferred.

        Raises RegistryError if there is none that builder can meet, or if its token server may not see the registry's
        password: one with less protection than the registry, or on another host without TLS.
        """
        found = list(_challenges(header)) if len(header) <= _LONGEST else []
        by_token = [parameters for scheme, parameters in found if scheme == "bearer" and "realm" in parameters]
        if not by_token:
            if any(scheme == "basic" for scheme, _ in found):
                return cls(realm=None, service="")
            raise RegistryError(f"{registry} denies access without a challenge that builder knows")
        realm = by_token[0]["realm"]
        try:
            server = Origin.of(realm)
        except ValueError as error:
            raise RegistryError(f"{registry} names the token server {realm!r}: {error}", hint=_HINT) from error
        if not home.may_lead_to(server) or (server.scheme == "http" and server.host != home.host):
            raise RegistryError(f"{registry} would have its password sent in clear, to {server}", hint=_HINT)
        return cls(realm=realm, service=by_token[0].get("service", ""))


def _challenges(header: str) -> Iterator[tuple[str, Mapping[str, str]]]:
    """The schemes in a WWW-Authenticate header, in lower case, each with its parameters; up to what is malformed."""
    place, scheme, parameters = 0, "", dict[str, str]()
    while word := _WORD.match(header, _SPACE.match(header, place).end()):  # type: ignore[union-attr]  # it may be empty
        place = word.end()
        if scheme and (value := _VALUE.match(header, place)):
            place = value.end()
            quoted = value["quoted"]
            text = value["plain"] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
            parameters.setdefault(word[0].lower(), text)
            continue
        if scheme:
            yield scheme, parameters
        scheme, parameters = word[0].lower(), {}
        if token := _TOKEN68.match(header, place):
            place = token.end()
    if scheme:
        yield scheme, parameters


def fetch_authorization(session: Session, challenge: Challenge, *, registry: str, scopes: Sequence[str]) -> str:
    """Return the Authorization header that meets a registry's challenge; fetch a token for the scopes if it takes one.

    Raises RegistryError if there is no login or it is refused, TokenServerBusyError, and requests.RequestException.
    """
    credentials = credentials_for(registry)
    login = f"docker login {registry}"
    identity = credentials[1] if credentials and credentials[0] == IDENTITY_USER else None
    basic = f"Basic {_base64(':'.join(credentials))}" if credentials and identity is None else None
    if challenge.realm is None:
        if basic is None:
            raise RegistryError(f"{registry} requires a password", hint=login)
        return basic
    if identity is not None:
        answer = _exchange(session, challenge.realm, challenge.service, identity, scopes)
    else:
        answer = session.request(
            "GET", challenge.realm, params={"service": challenge.service, "scope": scopes},
            headers={"Authorization": basic} if basic else {}, auth=keep_authorization,
            limit=ANSWER_BYTES, seconds=ANSWER_SECONDS,
        )  # fmt: skip
    what = f"a token for {scopes[0].split(':')[1]}"
    if answer.status_code in TEMPORARY:
        raise TokenServerBusyError(f"no token: {status_of(answer)}")
    if not answer.ok:
        raise RegistryError(f"{registry} refused {what}: {status_of(answer)}", hint=login)
    return f"Bearer {_parse_token(answer, RegistryError(f'{registry} did not send {what}', hint=login))}"


def _exchange(session: Session, realm: str, service: str, identity: str, scopes: Sequence[str]) -> requests.Response:
    """Exchange an identity token, which goes to the named server alone, for one that the registry takes."""
    form = {
        "grant_type": "refresh_token", "refresh_token": identity, "service": service, "client_id": "builder",
        "scope": " ".join(scopes),
    }  # fmt: skip
    return session.request(
        "POST", realm, body=lambda: urlencode(form), headers={"Content-Type": "application/x-www-form-urlencoded"},
        auth=keep_authorization, limit=ANSWER_BYTES, seconds=ANSWER_SECONDS, stays=True,
    )  # fmt: skip


def _base64(text: str) -> str:
    return base64.b64encode(text.encode("utf-8", "surrogateescape")).decode()


def _parse_token(answer: requests.Response, fault: RegistryError) -> str:
    """Return the token in a token server's answer; raise the given error, extended by what is wrong."""
    body = parse_or_raise(_TokenAnswer, answer.content, fault)
    token = body.token or body.access_token or ""
    keep_secret(token)
    if not re.fullmatch(r"[\x21-\x7e]+", token):  # what may stand in a header
        raise fault
    return token
