"""The Docker SDK's client: which engine it talks to, and the limits of that engine's answers."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final

import docker
from docker.context import Context, ContextAPI
from docker.utils import kwargs_from_env
from requests.adapters import BaseAdapter

from builder.errors import EngineError
from builder.http import LimitedAdapter

_TIMEOUT: Final = 60  # seconds to wait for an answer of the daemon
_ANSWER_BYTES: Final = 256 << 20  # the largest answer, but for an image, which goes to a file


def _context() -> Context | None:
    try:
        return ContextAPI.get_current_context()
    except Exception as error:  # the SDK raises bare Exception
        raise EngineError(
            f"Docker's current context cannot be read: {error}", hint="list the contexts with `docker context ls`"
        ) from error


def docker_host() -> str:
    """The address of the engine; raise EngineError if Docker's context cannot be read."""
    if os.environ.get("DOCKER_HOST"):
        return os.environ["DOCKER_HOST"]
    context = _context()
    return str(context.Host) if context else "unix:///var/run/docker.sock"


class _LimitedAPI(docker.APIClient):
    """The engine's API, whose answers have limits, also those that the SDK asks for when it connects."""

    def __init__(self, raise_if_stopped: Callable[[], None], **options: Any) -> None:
        self._raise_if_stopped = raise_if_stopped
        super().__init__(**options)

    def get_adapter(self, url: str) -> BaseAdapter:
        """Return what sends a request to the URL."""
        adapter = super().get_adapter(url)
        return LimitedAdapter(adapter, limit=_ANSWER_BYTES, raise_if_stopped=self._raise_if_stopped)


class _Client(docker.DockerClient):
    """The SDK's client, with an API of builder's."""

    def __init__(self, api: _LimitedAPI) -> None:
        self.api = api


def connect_docker(raise_if_stopped: Callable[[], None]) -> docker.DockerClient:
    """Connect as the docker command does: DOCKER_HOST first, then the context."""
    if os.environ.get("DOCKER_HOST"):
        options = kwargs_from_env()
    else:
        context = _context()
        options = {"base_url": docker_host(), "tls": (context and context.TLSConfig) or False}  # type: ignore[typeddict-item]
    return _Client(_LimitedAPI(raise_if_stopped, timeout=_TIMEOUT, version="auto", **options))
