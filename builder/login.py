"""Logins for package indexes and git servers, by host, from wherever uv or the matrix says that they are.

Whatever fetches packages gets them as one netrc file: this process, the uv that it runs, and builds, as a secret. So
they are in no address, argument, variable or key.
"""

from __future__ import annotations

import netrc
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from builder.errors import UsageError
from builder.memory import keep_in_memory
from builder.redaction import Login, keep_secret

# What a netrc file cannot say in a way that all its readers understand.
_UNSAYABLE: Final = re.compile(r"[\s\"'\\\x00-\x1f\x7f]|^#|^$")


def read_netrc(path: Path) -> dict[str, Login]:
    """The logins in the file that NETRC names, by host; `default` is for all others.

    Raises UsageError if it is no netrc file. The passwords are masked in all text from now on.
    """
    try:
        found = netrc.netrc(str(path)).hosts
    except netrc.NetrcParseError as error:  # its text may contain a password
        raise UsageError(f"NETRC names {path}, which is not a netrc file: see line {error.lineno}") from None
    except ValueError as error:
        raise UsageError(f"NETRC names {path}, which is not UTF-8 text") from error
    except OSError as error:
        raise UsageError(f"NETRC names {path}, which cannot be read", hint="correct or unset NETRC") from error
    for user, _, password in found.values():
        keep_secret(password or "", user=user)
    return {
        host: Login(place="NETRC", user=user, password=password or "") for host, (user, _, password) in found.items()
    }


def hand_over_logins(indexes: Sequence[Mapping[str, Any]], declared: Iterable[tuple[str, str, str]]) -> None:
    """Have NETRC name a file, in memory, with the logins of indexes and those that the matrix declares.

    `indexes` are uv's settings (`name`, `url`); `declared` are host, user name and the name of a variable. What NETRC
    named before stays valid for other hosts. Without such logins nothing changes. Raises UsageError for two different
    logins for one host, and for one that a netrc file cannot have.
    """
    logins = dict(_declared(declared))
    for host, login in _index_logins([*_variable_indexes(), *indexes]):
        _check_agreement(host, login, logins.get(host))
        logins[host] = login
    if not logins:
        return
    for host, login in logins.items():
        keep_secret(login.password, user=login.user)
        _check_form(host, login)
    old = read_netrc(Path(os.environ["NETRC"])) if os.environ.get("NETRC") else {}
    lines = [_line(host, login) for host, login in {**old, **logins}.items() if not _is_default(host)]
    lines += [_line(host, login) for host, login in old.items() if _is_default(host)]
    os.environ["NETRC"] = str(keep_in_memory("netrc", "".join(lines).encode()))


def _declared(declared: Iterable[tuple[str, str, str]]) -> Iterator[tuple[str, Login]]:
    for host, user, variable in declared:
        if password := os.environ.get(variable):  # on a laptop, the user's own netrc file has it
            yield host, Login(place=variable, user=user, password=password)


def _variable_indexes() -> Iterator[Mapping[str, str]]:
    """The indexes that uv's variables name, as `name=url`."""
    for variable in ("UV_DEFAULT_INDEX", "UV_INDEX"):
        for word in os.environ.get(variable, "").split():
            name, equals, url = word.partition("=")
            yield {"name": name, "url": url} if equals and "/" not in name else {"url": word}


def _index_logins(indexes: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, Login]]:
    """The login of each index, as uv finds it: in variables with the index's name, or in its address."""
    for index in indexes:
        try:
            parts = urlsplit(str(index.get("url", "")))
        except ValueError:
            continue  # the lock's reader reports it
        name = index.get("name")
        stem = f"UV_INDEX_{re.sub('[^A-Za-z0-9]', '_', name).upper()}" if isinstance(name, str) else ""
        user, password = (os.environ.get(f"{stem}_{what}", "") if stem else "" for what in ("USERNAME", "PASSWORD"))
        if user and not password:
            raise UsageError(f"{stem}_USERNAME is set, but not {stem}_PASSWORD", hint="set both, or none")
        if parts.hostname and password:
            yield parts.hostname, Login(place=f"{stem}_PASSWORD", user=user or "__token__", password=password)
        elif parts.hostname and parts.password:
            user, password = unquote(parts.username or ""), unquote(parts.password)
            yield (
                parts.hostname,
                Login(place=f"the address of the index {name or parts.hostname}", user=user, password=password),
            )


def _check_agreement(host: str, login: Login, other: Login | None) -> None:
    if other and (other.user, other.password) != (login.user, login.password):
        raise UsageError(
            f"{other.place} and {login.place} are two logins for one host, {host}",
            hint="builds get one login for each host: use one that may read both, such as the token of a group",
        )


def _check_form(host: str, login: Login) -> None:
    if _UNSAYABLE.search(login.user) or _UNSAYABLE.search(login.password):
        raise UsageError(
            f"the login for {host} in {login.place} has a space, a quote or a backslash, or begins with #",
            hint="builds get it as a netrc file, which cannot have these; use an access token",
        )


def _is_default(host: str) -> bool:
    return host == "default"


def _line(host: str, login: Login) -> str:
    who = "default" if _is_default(host) else f"machine {host}"
    password = f" password {login.password}" if login.password else ""
    return f"{who} login {login.user}{password}\n" if login.user else f"{who}{password}\n"
