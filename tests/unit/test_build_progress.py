"""The output of `docker buildx build --progress=rawjson` becomes events, a readable log and an error message."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from builder.engine.buildx import WITHOUT_CACHE
from builder.engine.progress import ProgressWriter
from builder.errors import BuildError, UsageError
from builder.image.build import BuildSettings, BuiltImage, build
from builder.image.build_log import BuildLog
from builder.image.inputs import ImageInputs
from builder.image.render import RenderedImage, render
from builder.oci.reference import Digest, Mirrors
from builder.secret import proxy_arguments
from tests.engines import DIGEST, LAYER, Recording
from tests.locks import pure
from tests.matrices import SMALL
from tests.plans import plan_of

FROM, COPY, STDLIB, INSTALL = "sha256:01", "sha256:02", "sha256:03", "sha256:04"
NAMES = {
    "sha256:00": "[internal] load build definition from Dockerfile",
    FROM: "[stage-0 1/4] FROM docker.io/library/python:3.12-slim-bookworm@sha256:ba5e",
    COPY: "[stage-0 2/4] COPY --link --from=ghcr.io/astral-sh/uv:0.13.8 /uv /uvx /usr/local/bin/",
    STDLIB: "[stage-0 3/4] RUN <<'EOF' (set -eu...)",
    INSTALL: "[stage-0 4/4] RUN --mount=type=bind,source=pylock.toml,target=/pylock.toml <<'EOF' (set -eu...)",
    "sha256:05": "exporting to image",
}


def begun(digest: str, **more: Any) -> dict[str, Any]:
    """A step that began."""
    return {"vertexes": [{"digest": digest, "name": NAMES[digest], "started": "2026-01-01T00:00:00Z", **more}]}


def said(digest: str, *pieces: str | bytes) -> list[dict[str, Any]]:
    """The output of a step, in these pieces."""
    return [
        {"logs": [{"vertex": digest, "stream": 2, "data": base64.b64encode(data).decode()}]}
        for data in (piece.encode() if isinstance(piece, str) else piece for piece in pieces)
    ]


def failed(digest: str, error: str) -> dict[str, Any]:
    """A step that failed."""
    return begun(digest, completed="2026-01-01T00:00:01Z", error=error)


GOOD = [
    {"vertexes": [{"digest": FROM, "name": NAMES[FROM]}]},
    *map(begun, ("sha256:00", FROM)),
    begun(COPY, cached=True),
    {"statuses": [{"id": "extracting", "vertex": FROM, "current": 1}]},
    begun(STDLIB),
    begun(STDLIB, completed="2026-01-01T00:00:01Z"),
    begun(INSTALL),
    *said(INSTALL, "Using Python 3.12.1\n", "Installed ", "1 package", " in ", "3ms\n", " + one==1.0\n"),
    begun("sha256:05"),
    *said(INSTALL, "the end"),
]
BAD = [
    begun(INSTALL),
    *said(INSTALL, "one\ntwo\n", "error: no such ", b"thing \xe2\x9c", b"\x97", "\n\nhint: none"),
    failed(INSTALL, 'process "/bin/sh -c set -eu\numask 000\n" did not complete successfully: exit code: 2'),
]
FULL = failed(INSTALL, "failed to solve: write /var/lib/x: no space left on device")


def indented(objects: Sequence[dict[str, Any]]) -> list[str]:
    """Objects as buildx 0.13 prints them: over many lines."""
    return [line for each in objects for line in json.dumps(each, indent=2).splitlines()]


def single(objects: Sequence[dict[str, Any]]) -> list[str]:
    """Objects as later versions print them: one per line."""
    return [json.dumps(each) for each in objects]


Printer = Callable[[Sequence[dict[str, Any]]], list[str]]
both_forms = pytest.mark.parametrize("printed", [indented, single])


@pytest.fixture
def rendered(tmp_path: Path, base_digest: Digest, uv_digest: Digest) -> RenderedImage:
    """An image with one package."""
    return render(plan_of(tmp_path, SMALL, pure("one"), base_digest=base_digest, uv_digest=uv_digest))


def settings(folder: Path, **more: Any) -> BuildSettings:
    """Settings with the logs in the folder."""
    return BuildSettings(**{"mirrors": Mirrors(), "secrets": {}, "logs": folder / "logs", **more})


def built(rendered: RenderedImage, folder: Path, engine: Recording) -> tuple[BuiltImage, list[str]]:
    """The image, and the steps that were reported during the build."""
    steps: list[str] = []
    return build(rendered, engine, settings(folder), folder, on_step=steps.append), steps


def complaint(rendered: RenderedImage, folder: Path, lines: Sequence[str], exit_code: int = 1) -> str:
    """The error message of a failed build."""
    with pytest.raises(BuildError) as raised:
        built(rendered, folder, Recording(lines=lines, exit_code=exit_code))
    assert raised.value.exit_code == 1
    return str(raised.value)


@both_forms
def test_steps_are_told_in_plain_words(rendered: RenderedImage, tmp_path: Path, printed: Printer) -> None:
    """Broken: users see no progress, or BuildKit's internal names."""
    _, news = built(rendered, tmp_path, Recording(lines=printed(GOOD)))
    assert news == [
        "fetch base and uv",
        "copy uv",
        "compile the standard library",
        "install 1 package",
        "installed 1 package",
        "write the layers",
    ]


@both_forms
def test_log_is_readable(rendered: RenderedImage, tmp_path: Path, printed: Printer) -> None:
    """Broken: the log of a build lacks lines, or has broken ones."""
    built(rendered, tmp_path, Recording(lines=printed(GOOD)))
    (log,) = (tmp_path / "logs").iterdir()
    assert log.name == f"3.12-slim-{rendered.key[:12]}.log"
    assert log.read_text(encoding="utf-8").splitlines() == [
        f"=== {NAMES['sha256:00']}",
        f"=== {NAMES[FROM]}",
        f"=== {NAMES[COPY]} (cached)",
        f"=== {NAMES[STDLIB]}",
        f"=== {NAMES[INSTALL]}",
        "    Using Python 3.12.1",
        "    Installed 1 package in 3ms",
        "     + one==1.0",
        "=== exporting to image",
        "    the end",
    ]


def test_built_image_is_what_the_engine_says(rendered: RenderedImage, tmp_path: Path) -> None:
    """Broken: builder reports the wrong digest or size of an image."""
    image, _ = built(rendered, tmp_path, Recording(lines=[]))
    assert (str(image.digest), image.size) == (DIGEST, len(LAYER))


def test_context_is_the_rendered_one_and_gone_afterwards(rendered: RenderedImage, tmp_path: Path) -> None:
    """Broken: builder builds something other than it rendered, or leaves contexts behind."""
    engine = Recording(lines=[])
    built(rendered, tmp_path, engine)
    assert engine.contexts == [dict(rendered.files)]
    assert not engine.requests[0].context.exists()
    assert engine.requests[0].tag == str(rendered.immutable_tag)
    labels = engine.requests[0].labels
    assert labels["io.gitlab.prebuilt.key"] == rendered.key
    assert ImageInputs.from_label(labels["io.gitlab.prebuilt.inputs"]) == ImageInputs.of(rendered)


def test_mirrors_are_named_beside_the_context(rendered: RenderedImage, tmp_path: Path) -> None:
    """Broken: a mirror is not used, or may provide an image other than the pinned one."""
    engine, plan = Recording(lines=[]), rendered.plan
    mirrored = settings(tmp_path, mirrors=Mirrors.from_strs(["docker.io=mirror.example"]))
    build(rendered, engine, mirrored, tmp_path, on_step=lambda _: None)
    assert engine.requests[0].contexts == {
        str(plan.base): f"docker-image://mirror.example/library/python@{plan.base.digest}"
    }


def test_proxies_are_handed_on_by_name(
    rendered: RenderedImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken: a build behind a proxy has no network, or a command line shows the proxy's password."""
    monkeypatch.setenv("HTTPS_PROXY", "https://jane:hunter2@proxy.invalid")
    engine = Recording(lines=[])
    build(rendered, engine, settings(tmp_path, proxy_arguments=proxy_arguments()), tmp_path, on_step=lambda _: None)
    assert "HTTPS_PROXY" in engine.requests[0].build_args
    assert "hunter2" not in repr(engine.requests)


@both_forms
def test_failure_has_last_words_and_log(rendered: RenderedImage, tmp_path: Path, printed: Printer) -> None:
    """Broken: the error does not name the failed step, its last output or the log."""
    said = complaint(rendered, tmp_path, printed(BAD))
    (log,) = (tmp_path / "logs").iterdir()
    assert said.splitlines() == [
        "3.12-slim: install 1 package failed: exit code: 2",
        "    one",
        "    two",
        "    error: no such thing ✗",
        "    hint: none",
        f"  log: {log}",
    ]
    assert "error: no such thing ✗" in log.read_text(encoding="utf-8")


def test_last_words_are_few(rendered: RenderedImage, tmp_path: Path) -> None:
    """Broken: an error fills the screen."""
    chatter = said(INSTALL, "".join(f"line {number}\n" for number in range(100)))
    words = complaint(rendered, tmp_path, single([begun(INSTALL), *chatter, failed(INSTALL, "exit code: 1")]))
    assert len(words.splitlines()) <= 10
    assert "line 99" in words


@pytest.mark.parametrize(
    "objects",
    [[FULL], [begun(INSTALL), *said(INSTALL, "cp: write: No space left on device\n"), failed(INSTALL, "exit code: 1")]],
)
def test_full_disk_says_how_to_make_room(
    rendered: RenderedImage, tmp_path: Path, objects: list[dict[str, Any]]
) -> None:
    """Broken: the error for a full disk does not say that it is the engine's, or what to do."""
    words = complaint(rendered, tmp_path, single(objects))
    assert "docker system df" in words
    assert "log: " in words


def test_buildx_that_speaks_for_itself(rendered: RenderedImage, tmp_path: Path) -> None:
    """Broken: messages of buildx before the first step are lost."""
    words = complaint(rendered, tmp_path, ["", 'ERROR: no builder "x" found', "[1]"])
    assert words.startswith('3.12-slim: ERROR: no builder "x" found')


def test_failure_without_a_word(rendered: RenderedImage, tmp_path: Path) -> None:
    """Broken: a killed build has an empty error message."""
    assert complaint(rendered, tmp_path, [], 137).startswith("3.12-slim: docker buildx build failed with exit code 137")


def test_secrets_are_kept_out_of_log_and_error(
    rendered: RenderedImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken: a password that a step prints is in the log or on the screen."""
    monkeypatch.setenv("CI_REGISTRY_PASSWORD", "Tr0ub4dor")
    chatter = said(INSTALL, "GET https://jane:hunter2@index.invalid/\n", "with Tr0ub", "4dor\n")
    words = complaint(rendered, tmp_path, single([begun(INSTALL), *chatter, failed(INSTALL, "exit code: 1")]))
    (log,) = (tmp_path / "logs").iterdir()
    for text in (words, log.read_text(encoding="utf-8")):
        assert "https://***@index.invalid/" in text
        assert "hunter2" not in text
        assert "Tr0ub4dor" not in text


def test_logs_that_cannot_be_written(rendered: RenderedImage, tmp_path: Path) -> None:
    """Broken: a wrong --log-dir causes a traceback."""
    (tmp_path / "logs").write_text("a file", encoding="utf-8")
    with pytest.raises(UsageError, match="logs") as raised:
        build(rendered, Recording(lines=[]), settings(tmp_path), tmp_path, on_step=lambda _: None)
    assert "--log-dir" in raised.value.hint


LOST = failed(COPY, "failed to stat active key during commit: snapshot ha2x does not exist: not found")


@both_forms
def test_second_attempt_counts(rendered: RenderedImage, tmp_path: Path, printed: Printer) -> None:
    """Broken: a build that is repeated without the cache shows no progress, or the first attempt's error."""
    lines = [*printed([begun(COPY), LOST]), WITHOUT_CACHE]
    _, news = built(rendered, tmp_path, Recording(lines=[*lines, *printed(GOOD)]))
    assert news.count("copy uv") == 2
    words = complaint(rendered, tmp_path, [*lines, *printed(BAD)])
    assert words.startswith("3.12-slim: install 1 package failed: exit code: 2")
    assert "cache" not in words


def test_damaged_cache_is_named(rendered: RenderedImage, tmp_path: Path) -> None:
    """Broken: a fault of the engine's own cache looks like one of the build, and nobody knows the remedy."""
    lines = single([begun(COPY), LOST])
    words = complaint(rendered, tmp_path, [*lines, WITHOUT_CACHE, *lines])
    assert "the engine's own cache is damaged: repeat with --no-cache" in words


def test_steps_of_this_machine(tmp_path: Path) -> None:
    """Broken: what runs without BuildKit has no steps, no log, or no last words."""
    steps: list[str] = []
    with (tmp_path / "log").open("w") as file:
        log = BuildLog(file=file, packages=2, on_step=steps.append)
        writer = ProgressWriter(on_line=log.read)
        writer.begin("unpack base and uv")
        writer.begin("make_layers.py in python:3.13")
        for line in ("builder: install 2 packages", "Installed 2 packages in 1ms", "no space", "builder: failed: that"):
            writer.print(line)
        writer.fail("exit code: 1")
        log.finish()
    assert steps == ["unpack base and uv", "install 2 packages", "installed 2 packages"]
    assert (
        log.failure_text() == "install 2 packages failed: exit code: 1\n    Installed 2 packages in 1ms\n    no space"
    )
    assert "    builder: install 2 packages\n" in (tmp_path / "log").read_text()
