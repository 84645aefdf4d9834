"""`builder ci adopt`: files of the same checkout are one pipeline, and files from elsewhere keep what they may use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.adopting import BAKED, changed_lines, run_adopt_files

AdoptFiles = Callable[[Mapping[str, str]], tuple[dict[str, str], str]]

IMAGE = "  image: python:3.12-alpine\n"
MOVED = "-  image: python:3.12-alpine\n+  image: $CI_REGISTRY_IMAGE/ci:3.12-alpine\n"
MAIN = ".gitlab-ci.yml"


@pytest.fixture
def adopt_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AdoptFiles:
    """Adopt a pipeline of several files: return the changed lines of each file, and the remarks."""

    def run(files: Mapping[str, str]) -> tuple[dict[str, str], str]:
        ended = run_adopt_files(tmp_path, monkeypatch, files)
        assert ended.exit_code == 0, ended.stderr
        return changed_lines(ended.stdout), ended.stderr

    return run


def test_jobs_of_included_files_are_adopted(adopt_files: AdoptFiles) -> None:
    """Broken: a pipeline whose jobs are all in included files is not changed at all."""
    changed, _ = adopt_files({
        MAIN: "include:\n  - local: /ci/test.yml\n  - ci/lint.yml\n",
        "ci/test.yml": f"include: {{local: ci/deep.yml}}\ntest:\n{IMAGE}  script: uv sync\n",
        "ci/lint.yml": f"lint:\n{IMAGE}  script: uv sync\n",
        "ci/deep.yml": f"include: ci/deeper.yml\ndeep:\n{IMAGE}  script: uv sync\n",
        "ci/deeper.yml": f"deeper:\n{IMAGE}  script: uv sync\n  cache: {{paths: [.venv]}}\n",
    })  # fmt: skip
    assert changed == {
        "ci/lint.yml": MOVED,
        "ci/test.yml": MOVED,
        "ci/deep.yml": MOVED,
        "ci/deeper.yml": f"{MOVED}-  cache: {{paths: [.venv]}}\n",
    }


def test_wildcards(adopt_files: AdoptFiles) -> None:
    """Broken: files that a wildcard includes are not read, or files that it does not include are changed."""
    text = f"%s:\n{IMAGE}  script: uv sync\n"
    changed, _ = adopt_files({
        MAIN: "include: ['ci/*.yml', {local: '/jobs/**.yml'}]\n",
        "ci/a.yml": text % "a", "ci/deep/b.yml": text % "b", "jobs/deep/c.yml": text % "c", "jobs/d.yaml": text % "d",
    })  # fmt: skip
    assert set(changed) == {"ci/a.yml", "jobs/deep/c.yml"}


def test_global_image_for_jobs_of_an_included_file(adopt_files: AdoptFiles) -> None:
    """Broken: the global image stays because no job is in the same file, or a job there loses its cache too early."""
    changed, _ = adopt_files({
        MAIN: "image: python:3.12-alpine\ninclude: jobs.yml\n",
        "jobs.yml": "test:\n  script:\n    - uv sync\n    - uv cache prune --ci\n",
    })  # fmt: skip
    assert changed == {
        MAIN: "-image: python:3.12-alpine\n+image: $CI_REGISTRY_IMAGE/ci:3.12-alpine\n",
        "jobs.yml": "-    - uv cache prune --ci\n",
    }


def test_image_of_a_job_that_extends_across_files(adopt_files: AdoptFiles) -> None:
    """Broken: a job whose image a hidden job of another file sets is left alone."""
    changed, remarks = adopt_files({
        MAIN: "include: base.yml\ntest:\n  extends: .python\n  script: .venv/bin/pytest\n",
        "base.yml": f".python:\n{IMAGE}  before_script: [uv sync]\n  cache: {{paths: [.venv]}}\n",
    })  # fmt: skip
    assert changed == {
        MAIN: "-  script: .venv/bin/pytest\n+  script: pytest\n",
        "base.yml": f"{MOVED}-  cache: {{paths: [.venv]}}\n",
    }
    assert "test" not in remarks


def test_hidden_job_that_an_included_file_extends_or_references(adopt_files: AdoptFiles) -> None:
    """Broken: a hidden job goes although a file that is included extends it, so that GitLab rejects the pipeline."""
    changed, _ = adopt_files({
        MAIN: ".cached:\n  cache:\n    paths: [.venv]\ninclude: jobs.yml\n",
        "jobs.yml": f"a:\n  extends: .cached\n{IMAGE}  script: uv sync\n"
        f"b:\n{IMAGE}  cache: !reference [.cached, cache]\n  script: uv sync\n",
    })  # fmt: skip
    assert changed == {
        MAIN: "-.cached:\n-  cache:\n-    paths: [.venv]\n",
        "jobs.yml": f"-  extends: .cached\n{MOVED}-  image: python:3.12-alpine\n-  cache: !reference [.cached, cache]\n"
        "+  image: $CI_REGISTRY_IMAGE/ci:3.12-alpine\n",
    }
    changed, _ = adopt_files({
        MAIN: ".cached:\n  cache:\n    paths: [.venv]\ninclude: jobs.yml\n",
        "jobs.yml": f"a:\n  extends: .cached\n{IMAGE}  script: uv sync\nb:\n  extends: .cached\n"
        "  image: python:3.9\n  script: uv sync\n",
    })  # fmt: skip
    assert changed == {"jobs.yml": MOVED}


def test_job_that_two_files_define(adopt_files: AdoptFiles) -> None:
    """Broken: of a job that GitLab merges from two files, the image that is overridden counts."""
    changed, _ = adopt_files({
        MAIN: f"include: jobs.yml\ntest:\n{IMAGE}",
        "jobs.yml": "test:\n  image: python:3.9\n  cache: {paths: [.venv]}\n  script: uv sync\n",
    })  # fmt: skip
    assert changed == {MAIN: MOVED, "jobs.yml": "-  cache: {paths: [.venv]}\n"}


def test_removal_that_would_uncover_another_file(adopt_files: AdoptFiles) -> None:
    """Broken: a keyword is removed, so that the same one of an included file applies."""
    changed, remarks = adopt_files({
        MAIN: f"include: jobs.yml\ntest:\n{IMAGE}  before_script: [uv cache clean]\n",
        "jobs.yml": "test:\n  before_script: [make all]\n  script: uv sync\n",
    })  # fmt: skip
    assert changed == {MAIN: MOVED}
    assert "without it, the before_script in jobs.yml:2 would apply to test" in remarks


@pytest.mark.parametrize(
    "include",
    [
        "{project: acme/ci, file: /jobs.yml}", "{remote: 'https://ci.example/jobs.yml'}", "{template: Jobs/SAST.yml}",
        "{component: ci.example/acme/jobs/test@1}", "missing.yml", "{local: $WHICH.yml}", "https://ci.example/jobs.yml",
    ],
)  # fmt: skip
def test_hidden_job_that_a_foreign_file_may_use(adopt_files: AdoptFiles, include: str) -> None:
    """Broken: a hidden job, or a key of one, goes although a file from elsewhere may extend or reference it."""
    text = f".cached:\n  cache:\n    paths: [.venv]\n.pip:\n  before_script:\n    - pip install uv\ntest:\n{IMAGE}"
    text += "  extends: [.cached, .pip]\n  script: uv sync\n"
    changed, remarks = adopt_files({MAIN: f"include: [{include}]\n{text}"})
    assert changed == {MAIN: MOVED}
    assert "its cache or artifacts stay: a file that is included from elsewhere may use it" in remarks
    changed, _ = adopt_files({MAIN: text})
    assert "-.cached:" in changed[MAIN]


def test_global_cache_that_a_foreign_file_inherits(adopt_files: AdoptFiles) -> None:
    """Broken: jobs of another project lose the cache that they inherit, or a template of GitLab keeps it alive."""
    text = f"include: %s\ncache: {{paths: [.venv]}}\n{BAKED}  script: uv sync\n"
    assert adopt_files({MAIN: text % "{project: acme/ci, file: jobs.yml}"})[0] == {}
    changed, _ = adopt_files({MAIN: text % "{template: Security/SAST.gitlab-ci.yml}"})
    assert changed == {MAIN: "-cache: {paths: [.venv]}\n"}


def test_job_that_only_overrides_one_of_a_template(adopt_files: AdoptFiles) -> None:
    """Broken: `sast:` of a template gets the baked image, or counts as a job that needs the cache."""
    changed, remarks = adopt_files({
        MAIN: "include: {template: Security/SAST.gitlab-ci.yml}\n"
        "sast:\n  image: python:3.12-alpine\n  before_script: [pip install app]\n  cache: {paths: [.venv]}\n"
        f"test:\n{IMAGE}  script: uv sync\n",
    })  # fmt: skip
    assert changed == {MAIN: MOVED}
    assert "sast" not in remarks


def test_global_image_when_all_jobs_are_elsewhere(adopt_files: AdoptFiles) -> None:
    """Broken: the image of a file that has no job of its own is left alone."""
    text = "include: {project: acme/ci, file: jobs.yml}\ndefault:\n  image: python:3.12-alpine\n"
    assert adopt_files({MAIN: text})[0] == {MAIN: MOVED}


def test_component_of_builder_uses_nothing(adopt_files: AdoptFiles) -> None:
    """Broken: with builder's own component, hidden jobs and caches stay as with a component of somebody else."""
    text = f".cached:\n  cache: {{paths: [.venv]}}\ntest:\n  extends: .cached\n{IMAGE}  script: uv sync\n"
    include = "include: {component: $CI_SERVER_FQDN/acme/builder/prebuilt@1.0.0}\n"
    assert "-.cached:" in adopt_files({MAIN: include + text})[0][MAIN]


def test_file_that_the_pipeline_includes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: adopting one included file by name removes a hidden job that the others extend."""
    files = {
        MAIN: "include: ci.yml\ntest:\n  extends: .cached\n  script: uv sync\n",
        "ci.yml": f".cached:\n  cache: {{paths: [.venv]}}\nlint:\n  extends: .cached\n{IMAGE}  script: uv sync\n",
    }
    ended = run_adopt_files(tmp_path, monkeypatch, files, "ci.yml")
    assert changed_lines(ended.stdout) == {"ci.yml": MOVED}


@pytest.mark.parametrize("include", [MAIN, "a.yml", "../outside.yml", "[]", "{}", "[[a.yml]]"])
def test_odd_includes(adopt_files: AdoptFiles, include: str, tmp_path: Path) -> None:
    """Broken: files that include each other, or that are outside of the checkout, are read without end or at all."""
    (tmp_path.parent / "outside.yml").write_text(f"out:\n{IMAGE}  script: uv sync\n", encoding="utf-8")
    changed, _ = adopt_files({MAIN: f"include: {include}\n", "a.yml": f"include: {MAIN}\n", ".git/HEAD": ""})
    assert changed == {}


def test_error_in_an_included_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: a fault in an included file is reported for the including one, or is a traceback."""
    ended = run_adopt_files(tmp_path, monkeypatch, {MAIN: "include: ci/a.yml\n", "ci/a.yml": "a: 1\nb: [\n"})
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert ended.stderr.startswith("builder: ci/a.yml:3: not YAML: ")
