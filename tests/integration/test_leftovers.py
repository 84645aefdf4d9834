"""What a run that is killed, without a chance to clean up, leaves behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("clean_environment")

PASSWORD = "s3same-0pen"

STREAM = """
import os, sys
from builder.process import ProcessGroup

script = "sleep 1000 & echo $$ $! >&2; wait"
ProcessGroup().stream(["sh", "-c", script], env=os.environ, on_line=lambda line: print(line, flush=True))
"""

LOGIN = """
import subprocess, sys, time
from builder.oci.credentials import docker_environment

with docker_environment() as variables:
    folder = variables["DOCKER_CONFIG"]
    subprocess.run(["cat", folder + "/config.json"], check=True)
    print(flush=True)
    print(folder, flush=True)
    time.sleep(1000)
"""


def wait_until(condition: Callable[[], bool]) -> bool:
    """Whether the condition comes true within ten seconds."""
    end = time.monotonic() + 10
    while not condition() and time.monotonic() < end:
        time.sleep(0.1)
    return condition()


def is_running(number: int) -> bool:
    """Whether a process exists and has not ended."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_children_end_with_their_parent(number: signal.Signals) -> None:
    """Broken: a killed run leaves its buildx behind, which goes on building."""
    with subprocess.Popen([sys.executable, "-c", STREAM], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        children = [int(word) for word in process.stdout.readline().split()]
        assert len(children) == 2
        assert all(map(is_running, children))
        process.send_signal(number)
        process.wait(10)
        assert wait_until(lambda: not any(map(is_running, children)))


def test_no_password_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: a killed run leaves the passwords of a GitLab job in a temporary folder."""
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker" / "config.json").write_text(json.dumps({"auths": {"other.example": {"auth": "eDpzM3NhbWU="}}}))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("CI_REGISTRY", "r.example")
    monkeypatch.setenv("CI_REGISTRY_USER", "jane")
    monkeypatch.setenv("CI_REGISTRY_PASSWORD", PASSWORD)
    with subprocess.Popen([sys.executable, "-c", LOGIN], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        config = json.loads(process.stdout.readline())
        folder = Path(process.stdout.readline().strip())
        assert set(config["auths"]) == {"r.example", "other.example"}
        process.kill()
        process.wait(10)
    assert not (folder / "config.json").exists()
    left = [path for path in tmp_path.rglob("*") if path.is_file() and path.parent != tmp_path / "docker"]
    assert left == []
    assert os.path.lexists(folder / "config.json")
