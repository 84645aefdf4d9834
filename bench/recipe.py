"""The recipe to beat: the Dockerfile of uv's own Docker guide, with `docker build` and `docker push`, or with bake."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.commands import timed
from builder.oci.reference import ImageRef, Mirrors
from builder.process import run
from builder.secret import PROXY_ARGS

_CA: Final = "/run/ca-certificates.crt"
_DOCKERFILE: Final = """\
FROM {base}
COPY --from={uv} /uv /uvx /bin/
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy
WORKDIR /app
RUN --mount=type=cache,id={cache},target=/root/.cache/uv \\
    --mount=type=bind,source=uv.lock,target=uv.lock \\
    --mount=type=bind,source=pyproject.toml,target=pyproject.toml \\
{ca_mount}    {ca_variable}uv sync --locked --no-install-project
ENV PATH="/app/.venv/bin:$PATH"
"""


def located(image: str) -> str:
    """Where an image is fetched from: a mirror, if BUILDER_MIRRORS names one."""
    mirrors = Mirrors.from_strs([os.environ.get("BUILDER_MIRRORS", "")])
    return str(mirrors.locate(ImageRef.from_str(image)))


@contextlib.contextmanager
def uv_cache(base: str) -> Iterator[str]:
    """Yield the id of a new cache mount, which is emptied at the end: only the engine itself can remove it."""
    name = f"builder-bench-{secrets.token_hex(6)}"
    try:
        yield name
    finally:
        dockerfile = f"FROM {base}\nRUN --mount=type=cache,id={name},target=/cache find /cache -mindepth 1 -delete\n"
        argv = ["docker", "buildx", "build", "--no-cache", "--output", "type=cacheonly", "-"]
        run(argv, stdin=dockerfile).check("emptying the recipe's cache")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The recipe for the project in `folder`; it writes to `files`, and `cache` is the id of its cache mount."""

    folder: Path
    files: Path
    uv_version: str
    cache: str

    def build(self, tag: str, base: str) -> float:
        """Build an image; return the seconds."""
        file = ["--file", str(self._dockerfile(base))]
        argv = ["docker", "build", *file, "--tag", tag, *_ca_options(), *_proxy_options(), str(self.folder)]
        return timed(argv, cwd=self.folder).seconds

    def build_and_push(self, images: Mapping[str, str]) -> float:
        """Build and push images, one after the other; they map tags to bases. Return the seconds."""
        return sum(
            self.build(tag, base) + timed(["docker", "push", tag], cwd=self.folder).seconds
            for tag, base in images.items()
        )

    def bake(self, images: Mapping[str, str]) -> float:
        """Build and push images with one `docker buildx bake`; return the seconds."""
        target = {
            "context": str(self.folder),
            "args": {name: os.environ[name] for name in PROXY_ARGS if os.environ.get(name)},
            "secret": [option for option in _ca_options() if option != "--secret"],
        }
        targets = {
            f"cell-{number}": {**target, "dockerfile": str(self._dockerfile(base)), "tags": [tag]}
            for number, (tag, base) in enumerate(images.items())
        }
        file = self.files / f"{secrets.token_hex(4)}.json"
        file.write_text(json.dumps({"group": {"default": {"targets": list(targets)}}, "target": targets}))
        # Newer ones ask before they read files outside the folder.
        allowed = {"BUILDX_BAKE_ENTITLEMENTS_FS": "0"}
        return timed(["docker", "buildx", "bake", "--file", str(file), "--push"], cwd=self.folder, env=allowed).seconds

    def _dockerfile(self, base: str) -> Path:
        has_ca = bool(os.environ.get("SSL_CERT_FILE"))
        text = _DOCKERFILE.format(
            base=base,
            uv=located(f"ghcr.io/astral-sh/uv:{self.uv_version}"),
            cache=self.cache,
            ca_mount=f"    --mount=type=secret,id=ca,target={_CA} \\\n" if has_ca else "",
            ca_variable=f"SSL_CERT_FILE={_CA} " if has_ca else "",
        )
        path = self.files / f"{secrets.token_hex(4)}.Dockerfile"
        path.write_text(text, encoding="utf-8")
        return path


def _ca_options() -> list[str]:
    bundle = os.environ.get("SSL_CERT_FILE")
    return ["--secret", f"id=ca,src={bundle}"] if bundle else []


def _proxy_options() -> list[str]:
    return [f"--build-arg={name}" for name in PROXY_ARGS if os.environ.get(name)]
