"""A CI job on an image, here: what it gets."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest

from builder.errors import UsageError
from builder.lock.model import Lock
from builder.rehearsal import Rehearsal, job_script, parse_variables
from builder.verify.checkout import Checkout
from tests import locks


def uv_lock(folder: Path, *flags: str) -> Lock:
    """A lock of uv's kind, with flags."""
    plain = locks.read(folder, locks.pure("six"))
    return Lock(path=plain.path, kind="uv.lock", pylock=plain.pylock, extras=(), groups=(), uv_flags=flags)


def test_container_of_a_job(tmp_path: Path) -> None:
    """Broken: the job is not in the lock's folder, or has a network, another user, or its secrets in a command line."""
    checkout = Checkout(top=tmp_path, workdir=PurePosixPath("api"), lock=uv_lock(tmp_path))
    job = Rehearsal(
        image="ci:3.12", checkout=checkout, script="pytest", variables={"CI": "true", "TOKEN": None}, user="1000",
        network=False,
    )  # fmt: skip
    options = job.options("type=volume,source=v,target=/builds", "name")
    pairs = {tuple(options[at : at + 2]) for at in range(len(options) - 1)}
    assert {
        ("--workdir", "/builds/project/api"), ("--network", "none"), ("--user", "1000"), ("--env", "CI=true"),
        ("--env", "TOKEN"), ("--mount", "type=volume,source=v,target=/builds"),
    } <= pairs  # fmt: skip
    assert options[-4:] == ["ci:3.12", "sh", "-c", "pytest"]
    assert "--tty" not in options


def test_script_installs_the_project_first(tmp_path: Path) -> None:
    """Broken: `builder run -- pytest` cannot import the project, or a script or an argument is split in pieces."""
    lock = uv_lock(tmp_path, "--group", "test")
    assert job_script(["a && b"], lock, sync=True) == "uv sync --frozen --quiet --group test && { a && b\n}"
    assert job_script(["a"], lock, sync=True, network=False).startswith("uv sync --frozen --quiet --offline --group")
    assert job_script(["pytest", "-k", "a b"], lock, sync=False) == "pytest -k 'a b'"
    assert job_script(["pytest"], locks.read(tmp_path, locks.pure("six")), sync=True) == "pytest"


def test_variables_of_the_user() -> None:
    """Broken: a variable gets another value, or a misspelled one is passed on as nothing."""
    assert parse_variables(["A=1=2", "B", "C="], {"B": "secret"}) == {"A": "1=2", "B": None, "C": ""}
    for text, said in (("NO", "--env NO: it is not set here"), ("1=2", "names no variable"), ("=x", "no variable")):
        with pytest.raises(UsageError, match=said):
            parse_variables([text], {})
