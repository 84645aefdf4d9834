"""A soak: random kills, faults and concurrent runs of builder against one registry, and what must hold after each step.

A few sets of images are built once. Each step starts some processes of the command line at once, with faults of the
registry and kills at requests that the seed chooses; when all have ended, it compares the registry with what they said.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

import requests
from uv import find_uv_bin

from builder.oci.reference import ImageRef, Mirrors
from builder.oci.registry import Registries
from builder.release.journal import Promotion, fetch_journal, journal_of
from tests.integration.faults import (
    Action,
    Answer,
    Call,
    CutRequest,
    CutResponse,
    Exchange,
    FaultProxy,
    HangUp,
    Slow,
)
from tests.integration.nightly import INDEX, MANIFEST, Nightly

# The third and the fourth set differ from the first in one cell each, so that two promotions may move different tags.
VERSIONS: Final[Mapping[str, Mapping[str, str]]] = {
    "one": {"idna": "3.10", "tomli": "2.0.1", "iniconfig": "2.0.0"},
    "tomli": {"idna": "3.10", "tomli": "2.0.2", "iniconfig": "2.0.0"},
    "iniconfig": {"idna": "3.10", "tomli": "2.0.1", "iniconfig": "2.1.0"},
    "idna": {"idna": "3.9", "tomli": "2.0.1", "iniconfig": "2.0.0"},
}
PYPROJECT: Final = """\
[project]
name = "soak"
version = "1"
requires-python = ">=3.11"
dependencies = [
    "idna=={idna}",
    "tomli=={tomli}; python_version < '3.12'",
    "iniconfig=={iniconfig}; python_version >= '3.12'",
]

[tool.uv]
package = false
"""
CELLS: Final = ("3.11-slim", "3.13-slim")
ALIASES: Final = {"latest": "3.13-slim", "oldest": "3.11-slim"}
TAGS: Final = (*CELLS, *ALIASES)
EXTRA: Final = 'aliases = { latest = "3.13-slim", oldest = "3.11-slim" }'
KEY_LABEL: Final = "io.gitlab.prebuilt.key"

# The command line, with leases that end soon, so that a step after a kill need not wait for half a minute.
PROGRAM: Final = """
import signal
from datetime import timedelta
from builder.release import lease
lease.DURATION = timedelta(seconds=5)
signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever started the soak
from builder.cli import main
main()
"""
LONGEST: Final = 150.0  # seconds, for one process; more is a hang
KILLS: Final = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
KILLED: Final = {-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, 130}

MOVE: Final = ("PUT", r"/manifests/(3\.1[13]-slim|latest|oldest)$")
POINTS: Final = (
    MOVE,
    MOVE,
    ("PUT", "/manifests/builder-journal$"),
    ("PUT", "/manifests/builder-lease$"),
    ("GET", "/manifests/builder-(lease|journal)$"),
    ("PUT", r"/manifests/3\.1[13]-slim-[0-9a-f]{12}$"),
    ("HEAD", "/manifests/"),
    ("GET", "/manifests/"),
    ("GET", "/blobs/"),
    ("POST|PUT|HEAD", "/blobs/"),
    ("DELETE", "/manifests/"),
    ("GET", "/tags/list"),
)


class Lie(AssertionError):  # noqa: N818 - a finding
    """Something that must hold does not; `str()` says what, and shows the step."""


@dataclass(kw_only=True)
class Process:
    """A process of the command line: its words, the set that it promotes, if it does, and what it printed."""

    words: tuple[str, ...]
    target: str | None
    running: subprocess.Popen[bytes]
    files: tuple[IO[bytes], IO[bytes]]
    stdout: str = ""
    stderr: str = ""
    killed: bool = False

    @property
    def code(self) -> int:
        """Its exit code."""
        return self.running.returncode

    @property
    def moves(self) -> bool:
        """Whether it may move tags."""
        return self.words[0] != "prune"

    def end(self) -> None:
        """Keep what it printed."""
        for file in self.files:
            file.seek(0)
        self.stdout, self.stderr = (file.read().decode(errors="replace") for file in self.files)
        for file in self.files:
            file.close()

    def kill(self, number: signal.Signals) -> None:
        """Kill it, if it still runs."""
        if self.running.poll() is None:
            self.killed = True
            self.running.send_signal(number)

    def __str__(self) -> str:
        ended = f"exit code {self.code}{', killed' if self.killed else ''}"
        return f"$ builder {' '.join(self.words)}  ({self.target}): {ended}\n{self.stderr.rstrip()}"


@dataclass(frozen=True, kw_only=True)
class State:
    """What is in the registry: the digest and the key that each moving tag names, and the journal, newest first."""

    digests: Mapping[str, str | None]
    keys: Mapping[str, str | None]
    journal: Sequence[Promotion]


@dataclass(kw_only=True)
class Soak:
    """A repository behind a fault proxy, the sets of images that it has, and the names of those that were promoted."""

    proxy: FaultProxy
    host: str  # of the registry itself
    path: str
    folder: Path
    seed: int
    names: Sequence[str] = tuple(VERSIONS)
    say: Callable[[str], None] = print
    keys: dict[str, dict[str, str]] = field(default_factory=dict)
    promoted: set[str] = field(default_factory=set)
    steps: int = 0
    history: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.begun = time.monotonic()
        self.random = random.Random(self.seed)  # noqa: S311
        self.repository = ImageRef.from_str(f"{self.host}/{self.path}")
        self.registries = Registries(Mirrors())

    def project(self, name: str) -> Nightly:
        """The project whose lock has this set."""
        return Nightly(folder=self.folder / name, repository=f"{self.proxy.host}/{self.path}", env={})

    def prepare(self) -> None:
        """Build, verify and push every set, and promote the first."""
        for name in self.names:
            project = self.project(name)
            project.folder.mkdir()
            (project.folder / "pyproject.toml").write_text(PYPROJECT.format(**VERSIONS[name]))
            subprocess.run([find_uv_bin(), "lock", "--quiet"], cwd=project.folder, check=True)
            project.matrix(extra=EXTRA)
            done = project.builder("build", "--push", "--promote", "none", "--json")
            assert done.returncode == 0, done.stderr
            self.keys[name] = {cell["name"]: cell["key"] for cell in json.loads(done.stdout)["cells"]}
        self._one("promote", self.names[0])
        self.check([], self.read())

    def run(self, seconds: float) -> None:
        """Take steps for so long, then one without faults; raise Lie if something does not hold."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.step()
        self.settle()

    def step(self) -> None:
        """Start some processes at once, with faults and kills; check what stands when all have ended."""
        self.steps += 1
        before = self.read()
        plan: list[str] = []
        running: list[Process] = []
        for words, target in self._choose():
            running.append(self._start(words, target))
            plan.append(" ".join(words))
        plan += self._arm(running)
        self.history.append(f"step {self.steps}: {'; '.join(plan)}")
        self._wait(running)
        self.proxy.come_back()
        self.proxy.forget()
        after = self.read()
        try:
            self.check(running, after, before)
        except Lie as lie:
            told = "\n".join(map(str, running))
            raise Lie(
                f"seed {self.seed}: {lie}\n{self.history[-1]}\n{told}\nbefore: {_told(before)}\nafter: {_told(after)}"
            ) from None
        codes = ", ".join(str(process.code) for process in running)
        stands = self.set_of(after) or "between two sets"
        self.say(f"{time.monotonic() - self.begun:4.0f} s, {self.history[-1]} -> {codes}; {stands}")
        if self.set_of(after) is None:
            self.settle()

    def settle(self) -> None:
        """Promote a set without faults: whatever happened before, that must work, and leave one set."""
        name = self.random.choice(self.names)
        self._one("build", "--push", "--json", target=name)
        state = self.read()
        if not self.is_set(state, name):
            raise Lie(f"seed {self.seed}: after {name} was promoted without a fault: {_told(state)}")

    def _one(self, *words: str, target: str | None = None) -> None:
        """Run one process without faults, which must succeed."""
        name = target or words[-1]
        words = words if target else words[:-1]
        process = self._start(words, name)
        self._wait([process])
        if process.code:
            recent = "\n".join(self.history[-5:])
            raise Lie(f"seed {self.seed}: without a fault, but after\n{recent}\n{process}\nnow: {_told(self.read())}")

    def _choose(self) -> Iterable[tuple[tuple[str, ...], str]]:
        """The processes of a step: their words, and the set whose project they run in."""
        for _ in range(self.random.choice((1, 1, 2, 2, 3))):
            name = self.random.choice(self.names)
            verb = self.random.choice(("build", "promote", "promote", "push", "rollback", "rollback", "prune"))
            if verb == "build":
                yield ("build", "--push", "--json"), name
            elif verb == "prune":
                yield ("prune", "--delete", "--hours", "0", "--keep", str(self.random.choice((1, 2, 3)))), name
            else:
                yield (verb, "--json"), name

    def _start(self, words: tuple[str, ...], target: str) -> Process:
        stdout, stderr = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115
        running = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *words], cwd=self.folder / target, env={**os.environ, "NO_COLOR": "1"},
            stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr,
        )  # fmt: skip
        promotes = words[0] in {"build", "promote", "push"}
        if promotes:
            self.promoted.add(target)
        return Process(words=words, target=target if promotes else None, running=running, files=(stdout, stderr))

    def _arm(self, running: Sequence[Process]) -> list[str]:
        """Set up this step's faults and kills; describe them."""
        told = []
        for _ in range(self.random.choice((0, 0, 1, 1, 2))):
            method, path = self.random.choice(POINTS)
            nth, times = self.random.choice((1, 1, 2, 3, 5)), self.random.choice((1, 1, 2, 6))
            action = self._fault()
            self.proxy.on(method, path, action, nth=nth, times=times)
            told.append(f"{method} {path} #{nth}x{times}: {action}")
        if self.random.random() < 0.5:
            process, number = self.random.choice(running), self.random.choice(KILLS)
            method, path = self.random.choice(POINTS)
            nth, passes = self.random.choice((1, 1, 2, 3)), self.random.random() < 0.5

            def kill(_: Exchange) -> Action | None:
                process.kill(number)
                return None if passes else HangUp()

            self.proxy.on(method, path, Call(kill), nth=nth)
            told.append(f"{number.name} for {process.words[0]} at {method} {path} #{nth}{' passed' if passes else ''}")
        return told

    def _fault(self) -> Action:
        return self.random.choice(
            (
                Answer(status=503), Answer(status=500), Answer(status=403), Answer(status=429),
                Answer(status=200, headers={"Content-Type": "text/html"}, body=b"<html>log in</html>"),
                HangUp(), HangUp(forward=True), HangUp(forward=True), CutRequest(after=40), CutResponse(after=40),
                Slow(rate=20_000),
            )
        )  # fmt: skip

    def _wait(self, running: Sequence[Process]) -> None:
        end = time.monotonic() + LONGEST
        while any(process.running.poll() is None for process in running) and time.monotonic() < end:
            time.sleep(0.02)
        hanging = [process for process in running if process.running.poll() is None]
        for process in hanging:
            process.running.kill()
            process.running.wait()
        for process in running:
            process.end()
        if hanging:
            raise Lie(f"seed {self.seed}: hangs: {hanging[0]}\n{self.history[-1:]}")

    def read(self) -> State:
        """Read the registry itself, past the proxy."""
        digests: dict[str, str | None] = {}
        keys: dict[str, str | None] = {}
        for tag in TAGS:
            digests[tag], keys[tag] = self._complete(tag)
        return State(
            digests=digests, keys=keys, journal=fetch_journal(journal_of(self.repository, ""), self.registries)
        )

    def _complete(self, tag: str) -> tuple[str | None, str | None]:
        """The digest and the key of what a tag names, which must be complete; None, if it names nothing."""
        base = f"http://{self.host}/v2/{self.path}"
        found = requests.get(f"{base}/manifests/{tag}", headers={"Accept": f"{INDEX}, {MANIFEST}"}, timeout=30)
        if found.status_code == requests.codes.not_found:
            return None, None
        found.raise_for_status()
        table = found.json()
        for blob in (table["config"], *table["layers"]):
            if not requests.head(f"{base}/blobs/{blob['digest']}", timeout=30).ok:
                raise Lie(f"seed {self.seed}: {tag} lacks {blob['digest']}\n{self.history[-1:]}")
        config = requests.get(f"{base}/blobs/{table['config']['digest']}", timeout=30).json()
        return found.headers["Docker-Content-Digest"], config["config"]["Labels"][KEY_LABEL]

    def is_set(self, state: State, name: str) -> bool:
        """Whether the moving tags name this set."""
        cells = {tag: ALIASES.get(tag, tag) for tag in TAGS}
        return all(state.keys[tag] == self.keys[name][cell] for tag, cell in cells.items()) and all(
            state.digests[alias] == state.digests[cell] for alias, cell in ALIASES.items()
        )

    def set_of(self, state: State) -> str | None:
        """The set that the moving tags name; None if they name parts of several."""
        return next((name for name in self.names if self.is_set(state, name)), None)

    def check(self, running: Sequence[Process], after: State, before: State | None = None) -> None:
        """Raise Lie unless the registry is as it must be, and as the processes said."""
        known = {tag: {self.keys[name][ALIASES.get(tag, tag)] for name in self.promoted} for tag in TAGS}
        for tag, key in after.keys.items():
            if key not in known[tag]:
                raise Lie(f"{tag} names {key}, which nobody promoted")
        for process in running:
            _check_manners(process)
        if before is None:
            return
        self._check_whole(running, after)
        movers = [process for process in running if process.moves]
        self._check_claims(movers, before, after)
        if len(running) == 1:
            self._check_alone(running[0], before, after)

    def _check_whole(self, running: Sequence[Process], after: State) -> None:
        """The tags name one set, unless a run was interrupted, and then the journal says between which states."""
        if self.set_of(after):
            return
        told = any("the tags now name:" in process.stderr for process in running)
        if not told and not any(process.killed for process in running):
            raise Lie("the tags name no set, and nobody was killed or said so")
        if not after.journal or after.journal[0].complete:
            raise Lie("the tags name no set, and the journal has no interrupted promotion")

    def _check_claims(self, movers: Sequence[Process], before: State, after: State) -> None:
        """What the processes with exit code 0 did is in the journal, and the latest of it stands."""
        done = [process for process in movers if process.code == 0]
        entries = [{move.tag: str(move.new) for move in entry.moves} for entry in after.journal]
        for process in done:
            claimed = {move["tag"]: move["new"] for move in json.loads(process.stdout)["promotion"]}
            if claimed and not any(claimed.items() <= entry.items() for entry in entries):
                raise Lie(f"the journal does not have what {process.words[0]} says it moved: {claimed}")
        had_part = done or [process for process in movers if process.code in KILLED or process.code == 4]
        if not had_part and after.digests != before.digests:
            raise Lie("no process succeeded, and tags have moved")
        if self.set_of(after) and after.journal and after.journal[0].complete:
            stale = {
                move.tag: str(move.new)
                for move in after.journal[0].moves
                if move.tag in after.digests and str(move.new) != after.digests[move.tag]
            }
            if stale:
                raise Lie(f"the journal's latest promotion is complete, but tags name something else: {stale}")

    def _check_alone(self, process: Process, before: State, after: State) -> None:
        """What one process said, with nobody else there, is what stands."""
        error = process.stderr
        if process.code == 0 and process.target and not self.is_set(after, process.target):
            raise Lie(f"{process.words[0]} succeeded, but the tags do not name {process.target}")
        if process.code in {1, 2, 3} and after.digests != before.digests:
            raise Lie(f"{process.words[0]} failed with {process.code}, and tags have moved")
        if ("no tag has changed" in error or "this run moved none" in error) and after.digests != before.digests:
            raise Lie("said that no tag has changed")
        for tag, digest in re.findall(r"^  (\S+): (sha256:[0-9a-f]{64})$", error, re.MULTILINE):
            if "the tags now name:" in error and after.digests.get(tag) != digest:
                raise Lie(f"said that {tag} names {digest}")
        if process.words[0] == "prune":
            if after.digests != before.digests:
                raise Lie("prune moved tags")
            self._check_pruned(process, after)

    def _check_pruned(self, process: Process, after: State) -> None:
        """What prune says it deleted is gone, and what the latest promotions named is not."""
        base = f"http://{self.host}/v2/{self.path}"
        accept = {"Accept": f"{INDEX}, {MANIFEST}"}
        for line in process.stdout.split():
            name, _, tag = line.rpartition(":")
            path = name.partition("/")[2]
            if requests.head(f"http://{self.host}/v2/{path}/manifests/{tag}", headers=accept, timeout=30).ok:
                raise Lie(f"prune said that it deleted {line}")
        keep = int(process.words[process.words.index("--keep") + 1])
        for entry in [entry for entry in after.journal if entry.complete][:keep]:
            for move in entry.moves:
                if not requests.head(f"{base}/manifests/{move.new}", headers=accept, timeout=30).ok:
                    raise Lie(
                        f"prune deleted {move.new}, which {move.tag} named in one of the latest {keep} promotions"
                    )


def _check_manners(process: Process) -> None:
    error = process.stderr
    if "Traceback" in error:
        raise Lie("a traceback")
    if process.code not in {0, 1, 2, 3, 4, *(KILLED if process.killed else ())}:
        raise Lie(f"exit code {process.code}")
    if process.code > 0 and not error.strip():
        raise Lie("failed without a word")


def _told(state: State) -> str:
    lines = [f"  {tag}: {digest} ({(state.keys[tag] or '')[:12]})" for tag, digest in state.digests.items()]
    for entry in state.journal[:4]:
        moves = ", ".join(f"{move.tag} {str(move.old)[7:15]}>{str(move.new)[7:15]}" for move in entry.moves)
        lines.append(f"  journal {entry.at:%H:%M:%S} {'complete' if entry.complete else 'interrupted'}: {moves}")
    return "\n".join(["", *lines])
