"""The time that `ci adopt` takes grows with the file, and no faster."""

from __future__ import annotations

import time

import pytest

from builder.gitlab.adopt.adopt import adopt
from builder.gitlab.adopt.file import parse_gitlab_file
from builder.gitlab.adopt.pipeline import Pipeline
from builder.gitlab.adopt.script import effect_of
from builder.matrix.file import parse_matrix
from tests.matrices import SMALL

HEAD = "default:\n  image: python:3.12-slim\n"
JOB = """\
job{n}:
  before_script:
    - python -m venv .venv

    - . .venv/bin/activate
    - pip install -r requirements.txt
  cache: {{ key: x, paths: [.cache/pip, .venv/] }}
  script: [pytest]
"""
KEPT = """\
job{n}:
  image: python:3.12-slim
  variables: {{ V{n}: "$W{n}" }}
  script: ["uv venv; pytest", "pip install --user x"]
"""


def seconds(job: str, jobs: int) -> float:
    """The least of three processor times to adopt a file with so many jobs, without those to parse it."""
    text = HEAD + "".join(job.format(n=number) for number in range(jobs))
    file, matrix = parse_gitlab_file(text, source="x"), parse_matrix(SMALL, source="m")
    times = []
    for _ in range(3):
        begun = time.process_time()
        adopt(Pipeline(files=(file,)), matrix)
        times.append(time.process_time() - begun)
    return min(times)


@pytest.mark.parametrize("job", [JOB, KEPT], ids=["removed", "kept"])
def test_many_jobs(job: str) -> None:
    """Broken: a file with thousands of jobs takes minutes."""
    assert seconds(job, 800) < 8 * seconds(job, 200)  # 4 times as long if it is linear, 16 if quadratic


@pytest.mark.parametrize(
    "text", ["a/" * 20_000, "/" * 40_000, "a/bin/" * 8_000, "x/" + "*" * 40_000 + "x", "a" * 40_000]
)
def test_long_line(text: str) -> None:
    """Broken: one long line of a script takes minutes."""
    begun = time.process_time()
    effect_of(text, {})
    effect_of(f"source {text}/bin/activate", {})
    assert time.process_time() - begun < 2
