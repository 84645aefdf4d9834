"""What a job does in an image: runs scripts, as its own user or as another one.

The modules of this folder run inside images, with nothing but the image's own Python (3.8 or later).
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sysconfig
import tempfile
from typing import Any, Dict, Iterator, List, Mapping, Optional

UNKNOWN_USER = 12345  # in no passwd file
SECONDS = 300  # a script that takes longer fails
MEMORY, INODES = 48 << 20, 100_000  # that environments of links may take
# Jobs that verify an image have a network. What uv asks for goes to a proxy that is not there, and is not tried again.
NOWHERE = "http://127.0.0.1:9"
PROXIES = "ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "http_proxy", "https_proxy"
JOB_SETTINGS = "UV_HTTP_RETRIES", "UV_NO_PROGRESS"  # of the checks themselves
WITHOUT_NETWORK = dict(dict.fromkeys(PROXIES, NOWHERE), NO_PROXY="", no_proxy="", UV_HTTP_RETRIES="0")


class Failed(Exception):  # noqa: N818 - a verdict
    """A check failed; `str()` is the evidence."""


class Skipped(Exception):  # noqa: N818 - a verdict
    """A check does not apply; `str()` says why."""


class Expected:
    """What is expected of the image: the JSON that builder wrote into the script. See `builder.verify.script`."""

    def __init__(self, table: Dict[str, Any]) -> None:
        self.variables: Dict[str, List[str]] = table["variables"]
        self.foreign: List[str] = table["foreign"]
        self.programs: Dict[str, Optional[str]] = table["programs"]
        self.uv: str = table["uv"]
        self.python: str = table["python"]
        self.interpreter: str = table["interpreter"]
        self.packages: Dict[str, Optional[str]] = table["packages"]
        self.trees: Dict[str, List[str]] = table["trees"]
        self.is_complete: bool = table["complete"]
        self.proven: List[str] = table["proven"]
        self.unvouched: List[str] = table["unvouched"]
        self.sync: List[str] = table["sync"]
        self.listed: List[str] = table["listed"]
        self.cached: List[List[str]] = table["cached"]
        self.sources: List[str] = table["sources"]
        self.overrides: bool = table["overrides"]
        self.folder: str = table["folder"]
        self.tools: Dict[str, str] = table["tools"]
        self.user: str = table["user"]
        self.family: str = table["family"]
        self.families: Dict[str, str] = table["families"]
        self.thorough: bool = table["thorough"]
        self.checks: List[str] = table["checks"]

    @property
    def first(self) -> str:
        """The first package by name; empty if there is none."""
        return min(self.packages, default="")


def scratch_folder() -> Optional[str]:
    """Where to make environments that consist of links: in memory, if there is room; None for the usual place."""
    memory = "/dev/shm"
    try:
        status = os.statvfs(memory)
    except OSError:
        return None
    has_room = status.f_bavail * status.f_frsize >= MEMORY and status.f_favail >= INODES
    return memory if has_room and os.access(memory, os.W_OK | os.X_OK) else None


def site_packages(environment: str) -> str:
    """The folder of an environment that packages are installed to, whichever Python it has."""
    return os.path.join(environment, sysconfig.get_path("purelib", "posix_prefix", {"base": ""}).lstrip("/"))


class Ended:
    """How a script ended: its exit code, and what it printed on stdout and stderr."""

    def __init__(self, code: int, output: str) -> None:
        self.code = code
        self.output = output

    @property
    def tail(self) -> str:
        """The last words of a script that failed."""
        lines = [line.strip() for line in self.output.splitlines() if line.strip()]
        return " / ".join(lines[-4:]) or "exit code %d" % self.code

    @property
    def last_line(self) -> str:
        """The last line that it printed."""
        return (self.output.splitlines() or [""])[-1]


class Shell:
    """The shell of a job in the checkout; `user` is the id of who runs scripts, None for the user of the job."""

    def __init__(self, top: str, folder: str, user: Optional[int] = None) -> None:
        self.top = top
        self.folder = folder
        self.user = user

    @contextlib.contextmanager
    def as_user(self, user: int) -> Iterator[Shell]:
        """The same one as another user, which takes root, in a copy of the checkout that is open to all users."""
        with tempfile.TemporaryDirectory() as scratch:
            copy = os.path.join(scratch, "project")
            shutil.copytree(self.top, copy, symlinks=True, ignore=shutil.ignore_patterns(".git"))
            os.chmod(scratch, 0o777)
            for folder, _, names in os.walk(copy):
                for path in [folder, *(os.path.join(folder, name) for name in names)]:
                    if not os.path.islink(path):
                        os.chmod(path, os.stat(path).st_mode | (0o777 if path == folder else 0o666))
            yield Shell(copy, self.folder, user)

    def run(self, script: str, variables: Optional[Mapping[str, str]] = None) -> Ended:
        """Run a shell script, which ends at the first command that fails."""
        return self._run(script, os.path.join(self.top, self.folder), variables)

    def run_in_copy(self, script: str) -> Ended:
        """Run a script that writes to the checkout in a copy of it, because others use the checkout too."""
        with tempfile.TemporaryDirectory() as scratch:
            copy = os.path.join(scratch, "project")
            shutil.copytree(self.top, copy, symlinks=True)
            return self._run(script, os.path.join(copy, self.folder), None)

    def require(self, script: str, variables: Optional[Mapping[str, str]] = None) -> Ended:
        """Run a script; raise Failed if it fails."""
        return succeeded(self.run(script, variables))

    def _run(self, script: str, folder: str, variables: Optional[Mapping[str, str]]) -> Ended:
        environment = dict(os.environ, **(variables or {}))
        if self.user is not None:
            environment["HOME"] = "/"
        try:
            process = subprocess.Popen(
                ["sh", "-euc", script],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=self._become if self.user is not None else None,
            )
        except (OSError, subprocess.SubprocessError) as error:
            return Ended(126, "cannot run sh: %s" % error)
        try:
            output, _ = process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return Ended(124, "not done within %d seconds" % SECONDS)
        return Ended(process.returncode, output.decode("utf-8", "replace").strip())

    def _become(self) -> None:
        user = self.user or 0
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)


def succeeded(ended: Ended) -> Ended:
    """Return how a script ended; raise Failed if it failed."""
    if ended.code:
        raise Failed(ended.tail)
    return ended


def sync_command(expected: Expected) -> str:
    """A job's `uv sync` without local packages; empty if there is no uv.lock to sync with."""
    return " ".join(map(shlex.quote, expected.sync))
