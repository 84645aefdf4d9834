"""User names and passwords for registries: GitLab's job variables, Docker's config file, its credential helpers."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from builder.command import run
from builder.errors import RegistryError
from builder.refs import DOCKER_HUB

_HUB_KEY: Final = "https://index.docker.io/v1/"


def credentials_for(registry: str) -> tuple[str, str] | None:
    """Return user name and password for the registry, or None where nobody is logged in.

    What `docker login` noted goes first; in a GitLab job CI_REGISTRY_USER and CI_REGISTRY_PASSWORD need no login.
    """
    config = _docker_config()
    key = _HUB_KEY if registry == DOCKER_HUB else registry
    helper = config.get("credHelpers", {}).get(registry) or config.get("credsStore")
    if helper:
        answer = run([f"docker-credential-{helper}", "get"], stdin=key)
        if answer.returncode == 0:
            found = json.loads(answer.stdout)
            return found["Username"], found["Secret"]
    auths = config.get("auths", {})
    for name in (key, f"https://{registry}", f"https://{registry}/v2/"):
        encoded = auths.get(name, {}).get("auth")
        if encoded:
            return _decoded(encoded, registry)
    if registry == os.environ.get("CI_REGISTRY") and os.environ.get("CI_REGISTRY_PASSWORD"):
        return os.environ.get("CI_REGISTRY_USER", ""), os.environ["CI_REGISTRY_PASSWORD"]
    return None


def configured_proxies() -> dict[str, str]:
    """Return the proxies that Docker's config file gives to builds, by where they stand there."""
    tables = _docker_config().get("proxies", {})
    return {
        f"proxies.{engine}.{name} in Docker's config file": str(value)
        for engine, proxies in tables.items()
        if isinstance(proxies, dict)
        for name, value in proxies.items()
    }


def _decoded(encoded: str, registry: str) -> tuple[str, str]:
    try:
        user, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except ValueError as error:
        raise RegistryError(
            f"Docker's config file has an unreadable login for {registry}", hint=f"docker login {registry}"
        ) from error
    return user, password


def _docker_config() -> Mapping[str, Any]:
    folder = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    path = folder / "config.json"
    if not path.is_file():
        return {}
    try:
        config: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RegistryError(f"cannot read {path}: {error}", hint="mend it, or log in anew with docker login") from error
    tables = ("auths", "credHelpers", "proxies")
    if not isinstance(config, dict) or not all(isinstance(config.get(name, {}), dict) for name in tables):
        raise RegistryError(f"{path} is no config file of Docker", hint="mend it, or log in anew with docker login")
    return config
