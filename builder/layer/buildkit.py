"""Makes layers with BuildKit: one build runs all steps, and its result is a folder of tars instead of an image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from builder.contract import BUILD_SECRETS
from builder.engine.buildx import BuildRequest, Buildx
from builder.image.render import RECIPE_NAME
from builder.layer.maker import RECIPE_FOLDER, MakeRequest
from builder.oci.reference import Mirrors

_OUTPUT = "/builder-layers"


@dataclass(frozen=True, kw_only=True)
class BuildKitMaker:
    """See `Maker`. `mirrors` are where the builder fetches base and uv from."""

    buildx: Buildx
    mirrors: Mirrors

    def make(self, request: MakeRequest, output: Path, *, on_line: Callable[[str], None]) -> int:
        """See `Maker.make`."""
        (request.folder / "Dockerfile").write_text(_dockerfile(request), encoding="utf-8")
        located = {str(ref): self.mirrors.locate(ref) for ref in (request.base, request.uv)}
        build = BuildRequest(
            context=request.folder,
            platform=str(request.platform),
            contexts={name: f"docker-image://{ref.without_tag()}" for name, ref in located.items() if name != str(ref)},
            secrets=request.secrets,
            build_args=request.build_args,
            ssh_agent=request.ssh_agent,
            no_cache=request.no_cache,
        )
        return self.buildx.build(build, ["--output", f"type=local,dest={output}"], on_line=on_line)


def _dockerfile(request: MakeRequest) -> str:
    mounts = [
        f"--mount=type=bind,target={RECIPE_FOLDER},rw",
        *(f"--mount=type=secret,id={name}" for name in BUILD_SECRETS),
        "--mount=type=ssh",
    ]
    # -B: what the program itself imports must not leave bytecode in the base's library.
    command = f"python3 -B {RECIPE_FOLDER}/{RECIPE_NAME} {RECIPE_FOLDER} {_OUTPUT}"
    return "\n".join(
        [
            f"FROM {request.base} AS make",
            "USER 0:0",  # whoever the base's images run as
            f"COPY --link --from={request.uv} /uv /uvx /usr/local/bin/",
            *(f"ADD {path.name} /" for path in request.python_layers),
            f"RUN {' '.join(mounts)} {command}",
            "FROM scratch",
            f"COPY --from=make {_OUTPUT} /",
            "",
        ]
    )
