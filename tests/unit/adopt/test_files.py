"""`builder ci adopt`: the text of the file stays the same otherwise, and invalid files cause clear errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.adopting import BAKED, Adopt, applied, job, run_adopt
from tests.commandline import builder
from tests.gitlab import MATRIX


def test_crlf_without_a_final_newline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: in a file with CRLF, or without a final newline, unrelated lines change."""
    text = job("python:3.12-alpine", "cache: {paths: [.venv]}").replace("\n", "\r\n").removesuffix("\r\n")
    ended = run_adopt(tmp_path, monkeypatch, text.replace("script:\r\n    - uv sync", "script:\r\n    - uv  sync"))
    after = job("python:3.12-alpine").replace("\n", "\r\n").removesuffix("\r\n").replace("uv sync", "uv  sync")
    after = after.replace("python:3.12", "$CI_REGISTRY_IMAGE/ci:3.12")
    before = text.replace("uv sync", "uv  sync")
    assert applied(before, ended.stdout) == after
    assert ended.stdout.endswith("     - pytest\n\\ No newline at end of file\n")


def test_last_line_without_a_newline_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: Git rejects the diff if the last line has no newline."""
    text = BAKED + "  script: uv sync\n  cache: {paths: [.venv]}"
    ended = run_adopt(tmp_path, monkeypatch, text)
    assert ended.stdout.endswith("-  cache: {paths: [.venv]}\n\\ No newline at end of file\n")
    assert applied(text, ended.stdout) == BAKED + "  script: uv sync\n"


def test_blank_lines(adopt: Adopt) -> None:
    """Broken: two blank lines remain where the lines between them were removed."""
    text = f"stages: [test]\n\nvariables:\n  UV_LINK_MODE: copy\n\n{BAKED}  script: uv sync\n"
    assert adopt(text)[0] == "-variables:\n-  UV_LINK_MODE: copy\n-\n"


def test_header_of_a_component(adopt: Adopt) -> None:
    """Broken: a component's header is changed, or the document after it is not found."""
    text = "spec:\n  inputs:\n    stage: {default: test}\n---\n" + job(
        "python:3.12-alpine", "stage: $[[ inputs.stage ]]"
    )
    assert adopt(text)[0] == "-  image: python:3.12-alpine\n+  image: $CI_REGISTRY_IMAGE/ci:3.12-alpine\n"


def test_duplicate_key(adopt: Adopt) -> None:
    """Broken: of two equal keys the one that GitLab ignores is changed, or there is no remark."""
    text = job("python:3.9-alpine").replace("  script", "  image: python:3.12-alpine\n  script")
    changed, remarks = adopt(text)
    assert changed == "-  image: python:3.12-alpine\n+  image: $CI_REGISTRY_IMAGE/ci:3.12-alpine\n"
    assert ".gitlab-ci.yml:2: line 3 defines image again, and GitLab uses that one" in remarks


def test_removal_that_would_activate_a_duplicate(adopt: Adopt) -> None:
    """Broken: the last of two equal keys is removed, so that the first one, which had no effect, applies."""
    changed, remarks = adopt(f"variables:\n  UV_CACHE_DIR: a\n  X: y\n  UV_CACHE_DIR: b\n{BAKED}  script: uv sync\n")
    assert changed == ""
    assert ".gitlab-ci.yml:4: UV_CACHE_DIR stays: without it, UV_CACHE_DIR in line 2 would apply" in remarks


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"test:\n  script: [\n", "not YAML: "),
        (
            b"a: 1\ntest:\n\tscript: x\n",
            ".gitlab-ci.yml:3: not YAML: found character '\\t' that cannot start any token\n",
        ),
        (b"test: &a\n  image: *b\n", ".gitlab-ci.yml:2: *b has no anchor &b before it"),
        (b"test: &a\n  image: *a\n", ".gitlab-ci.yml:2: *a has no anchor &a before it"),
        (b"a: 1\nb: \x00\n", ".gitlab-ci.yml:2: not YAML: invalid character"),
        (b"a: 1\nb: \xff\n", ".gitlab-ci.yml:2: not UTF-8 text (byte 8)"),
        (b"\n- a\n", ".gitlab-ci.yml:2: not a mapping of jobs"),
        (b"just words\n", ".gitlab-ci.yml:1: not a mapping of jobs"),
        (b"", ".gitlab-ci.yml:1: empty; it contains no jobs"),
        (b"# later\n", ".gitlab-ci.yml:1: empty; it contains no jobs"),
        (b"a: 1\n---\nb: 1\n", ".gitlab-ci.yml:3: unexpected second document"),
        (b"spec: {}\n---\na: 1\n---\nb: 1\n", ".gitlab-ci.yml:5: unexpected second document"),
        (b"a: " + b"[" * 200 + b"]" * 200, ".gitlab-ci.yml:1: nested deeper than 100 levels"),
    ],
)
def test_bad_file(content: bytes, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: an invalid file causes a traceback, or the error does not give the line."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".gitlab-ci.yml").write_bytes(content)
    (tmp_path / "matrix.toml").write_text(MATRIX, encoding="utf-8")
    ended = builder("ci", "adopt")
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert ended.stderr.startswith("builder: .gitlab-ci.yml:")
    assert words in ended.stderr
    assert len(ended.stderr.splitlines()) <= 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["missing.yml"], "cannot read missing.yml: No such file or directory"),
        (["."], "cannot read .: Is a directory"),
        (["-f", "missing.toml"], "cannot read missing.toml: No such file or directory"),
        (["one.yml", "two.yml"], "unexpected extra argument"),
    ],
)
def test_bad_arguments(arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: a mistyped file name causes a traceback, or is ignored."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".gitlab-ci.yml").write_text(job("python:3.12-alpine"), encoding="utf-8")
    (tmp_path / "matrix.toml").write_text(MATRIX, encoding="utf-8")
    ended = builder("ci", "adopt", *arguments)
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert words in ended.stderr


def test_another_file_and_matrix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: the diff of a named file does not apply at the root of the checkout, or -q prints remarks."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ci").mkdir()
    (tmp_path / "ci/python.yml").write_text(job("python:3.12-alpine", "cache: {paths: [.venv]}"), encoding="utf-8")
    (tmp_path / "images.toml").write_text(MATRIX, encoding="utf-8")
    for name in ("ci/python.yml", "./ci/python.yml", str(tmp_path / "ci/python.yml")):
        ended = builder("ci", "adopt", name, "-f", "images.toml", "-q")
        assert ended.stdout.startswith("--- a/ci/python.yml\n+++ b/ci/python.yml\n@@ ")
        assert (ended.exit_code, ended.stderr) == (0, "")
