"""Failures between push and promotion: jobs see only old tags or only new ones, and the next run finishes."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.conftest import docker, images_of, own_name
from tests.integration.faults import Action, Answer, Call, CutRequest, Exchange, FaultProxy, Gone, HangUp, Hold, between
from tests.integration.nightly import TAGS, Nightly, put_foreign, standing
from tests.integration.registries import Registry, a_faulty_registry, an_open_registry, asking_for_tokens
from tests.integration.seeds import Seeds, published_once
from tests.integration.test_publish import NO_ENGINE

pytestmark = pytest.mark.integration

__all__ = ["a_faulty_registry", "an_open_registry", "published_once"]

IMMUTABLE = r"/manifests/3\.1[13]-slim-[0-9a-f]{12}$"
MOVING = r"/manifests/3\.1[13]-slim$"
OLD, NEW = "3.9", "3.10"  # of idna


@dataclass(frozen=True)
class Case:
    """A repository behind a fault proxy, whose tags name the old images; the project's lock is the new one."""

    nightly: Nightly
    proxy: FaultProxy
    registry: Registry
    path: str
    old: dict[str, str | None]

    def standing(self) -> dict[str, str | None]:
        """The digests that the moving tags name now, fetched past the proxy."""
        return standing(self.registry.host, self.path)

    def is_old(self) -> bool:
        """Whether every tag names its old image."""
        return self.standing() == self.old

    def is_new(self) -> bool:
        """Whether every tag names its new image."""
        now = self.standing()
        return all(now.values()) and set(now.values()).isdisjoint(self.old.values())

    def repaired(self) -> bool:
        """Run again without a fault; return whether all tags are new, and no blob that was there was sent."""
        self.proxy.forget()
        self.proxy.come_back()
        done = self.nightly.builder("push")
        assert done.returncode == 0, done.stderr
        return self.is_new()


def relabel(nightly: Nightly, seeds: Seeds) -> None:
    """Tag the engine's images of the current lock as if they had been built for this repository."""
    for name in TAGS:
        key = seeds.find(nightly, name)
        for tag in (key, name):
            docker("tag", f"{seeds.repository}:{key}", f"{nightly.repository}:{tag}")


@pytest.fixture
def case(seeds: Seeds, open_registry: Registry, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Case]:
    """A repository with the old images, and the new ones built."""
    path = own_name(request)
    with between(open_registry.host) as proxy:
        nightly = Nightly(folder=tmp_path, repository=f"{proxy.host}/{path}", env={})
        nightly.matrix()
        nightly.lock(idna=OLD)
        seeds.publish(nightly)
        nightly.lock(idna=NEW)
        relabel(nightly, seeds)
        proxy.forget()
        yield Case(
            nightly=nightly, proxy=proxy, registry=open_registry, path=path, old=standing(open_registry.host, path)
        )
        docker("image", "rm", "--force", *(f"{nightly.repository}:{each}" for each in images_of(nightly.repository)))


PASSING: dict[str, tuple[str, str, Action]] = {
    "429": ("POST", "/blobs/uploads/", Answer(status=429)),
    "429 with Retry-After": ("PUT", IMMUTABLE, Answer(status=429, headers={"Retry-After": "1"})),
    "502 for a blob": ("PUT", "/blobs/uploads/", Answer(status=502)),
    "502 for a tag": ("PUT", MOVING, Answer(status=502)),
    "blob cut in the middle": ("PUT", "/blobs/uploads/", CutRequest(after=100_000)),
    "manifest cut in the middle": ("PUT", IMMUTABLE, CutRequest(after=100)),
    "answer to a tag lost": ("PUT", MOVING, HangUp(forward=True)),
}


@pytest.mark.parametrize("fault", PASSING)
def test_fault_that_passes(case: Case, fault: str) -> None:
    """Broken: a temporary failure of the registry fails the run."""
    method, path, action = PASSING[fault]
    case.proxy.on(method, path, action)
    done = case.nightly.builder("push")
    assert done.returncode == 0, done.stderr
    assert case.is_new()


def test_token_that_expires_between_blobs(seeds: Seeds, open_registry: Registry, tmp_path: Path) -> None:
    """Broken: a token that expires during a push is not renewed."""
    with asking_for_tokens(open_registry, lifetime=3) as tokens:
        environment = tokens.registry.environment(tmp_path / "docker")
        nightly = Nightly(folder=tmp_path, repository=f"{tokens.registry.host}/faults/tokens", env=environment)
        nightly.matrix()
        nightly.lock(idna=NEW)
        relabel(nightly, seeds)
        done = nightly.builder("push")
        assert done.returncode == 0, done.stderr
        assert len(tokens.issued) > 5
    assert all(standing(open_registry.host, "faults/tokens").values())


LASTING: dict[str, tuple[str, str, Action, str]] = {
    "registry full": ("PUT", "/blobs/uploads/", Answer(
        status=500, body=b'{"errors":[{"code":"UNKNOWN","message":"no space left on device"}]}'), "no space left"),
    "permission denied": ("POST", "/blobs/uploads/", Answer(
        status=403, body=b'{"errors":[{"code":"DENIED","message":"not for you"}]}'), "not for you"),
    "wrong password": ("POST|PUT", "", Answer(status=401, headers={"WWW-Authenticate": "Basic"}), "docker login"),
    "registry gone before the first blob": ("POST", "/blobs/uploads/", Gone(), "cannot reach"),
    "registry gone between push and promotion": ("GET", "/manifests/builder-journal", Gone(), "cannot reach"),
}  # fmt: skip


@pytest.mark.parametrize("fault", LASTING)
def test_fault_that_lasts(case: Case, fault: str) -> None:
    """Broken: a registry that keeps failing loses a tag, or the exit code is not 3."""
    method, path, action, said = LASTING[fault]
    case.proxy.on(method, path, action, times=None)
    done = case.nightly.builder("push")
    assert done.returncode == 3, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert case.is_old()
    assert case.repaired()


def test_second_tag_refused(case: Case) -> None:
    """Broken: if one tag cannot be moved, the others are not moved back, or the exit code is not 4."""
    case.proxy.on("PUT", MOVING, Answer(status=403), nth=2)
    done = case.nightly.builder("push")
    assert done.returncode == 4, done.stderr
    assert "no tag has changed" in done.stderr
    assert case.is_old()
    assert case.repaired()


def test_registry_gone_between_two_tags(case: Case) -> None:
    """Broken: if tags cannot be moved back, the message does not list them, or the next run does not finish."""
    case.proxy.on("PUT", MOVING, Gone(), nth=2)
    done = case.nightly.builder("push")
    assert done.returncode == 4, done.stderr
    assert "the tags now name:" in done.stderr
    assert all(tag in done.stderr for tag in TAGS)
    assert case.repaired()


def test_killed_between_two_tags(case: Case) -> None:
    """Broken: after a crash between two tags, the next run cannot finish or go back."""
    process = case.nightly.start("push")

    def kill(_: Exchange) -> None:
        process.kill()
        process.wait()

    case.proxy.on("PUT", MOVING, Call(kill), nth=2)
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    assert not case.is_old()
    assert case.repaired()
    assert case.nightly.builder("rollback", env=NO_ENGINE).returncode == 0
    assert case.is_old()


def test_killed_between_two_tags_and_rolled_back(case: Case) -> None:
    """Broken: after an interrupted promotion, `rollback` does not restore the images before it."""
    process = case.nightly.start("push")
    case.proxy.on("PUT", MOVING, Call(lambda _: process.kill()), nth=2)
    process.communicate(timeout=120)
    case.proxy.forget()
    done = case.nightly.builder("rollback", env=NO_ENGINE)
    assert done.returncode == 0, done.stderr
    assert case.is_old()


def test_tag_moved_by_somebody_else(case: Case) -> None:
    """Broken: a tag that somebody else moved since planning is overwritten, or the exit code is not 4."""
    moved: list[str] = []

    def move(_: Exchange) -> None:
        moved.append(put_foreign(case.registry.host, case.path, "3.13-slim"))

    case.proxy.on("HEAD", r"/manifests/3\.13-slim$", Call(move), nth=2)
    done = case.nightly.builder("push")
    assert done.returncode == 4, done.stderr
    assert "somebody else moved" in done.stderr
    assert moved[0] in done.stderr
    assert case.standing() == {"3.11-slim": case.old["3.11-slim"], "3.13-slim": moved[0]}
    assert case.repaired()


def test_immutable_tag_taken_meanwhile(case: Case) -> None:
    """Broken: an immutable tag that another machine pushed first is overwritten."""
    taken: list[str] = []

    def take(exchange: Exchange) -> None:
        taken.append(put_foreign(case.registry.host, case.path, exchange.path.rpartition("/")[2]))

    case.proxy.on("HEAD", IMMUTABLE, Call(take), nth=3)
    done = case.nightly.builder("push")
    assert done.returncode == 4, done.stderr
    assert taken[0] in done.stderr
    assert case.is_old()


def test_same_key_pushed_meanwhile(case: Case) -> None:
    """Broken: of two pipelines that built one key, one fails, or overwrites the image that the other promoted."""
    taken: list[str] = []
    keys = {cell["tags"][0].rpartition(":")[2]: cell["key"] for cell in case.nightly.plan().values()}

    def take(exchange: Exchange) -> None:
        tag = exchange.path.rpartition("/")[2]
        labels = {"io.gitlab.prebuilt.key": keys[tag]}
        taken.append(put_foreign(case.registry.host, case.path, tag, labels))

    case.proxy.on("HEAD", IMMUTABLE, Call(take), nth=3)
    done = case.nightly.builder("push")
    assert done.returncode == 0, done.stderr
    assert taken[0] in case.standing().values()
    assert case.is_new()


@pytest.mark.parametrize(("when", "all_new"), [("POST /blobs/uploads/", False), (f"PUT {MOVING}", True)])
def test_interrupted(case: Case, when: str, all_new: bool) -> None:
    """Broken: Ctrl-C during a push moves a tag, or during a promotion leaves only some tags moved."""
    process = case.nightly.start("push")
    method, _, path = when.partition(" ")
    case.proxy.on(method, path, Call(lambda _: process.send_signal(signal.SIGINT)))
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert case.is_new() if all_new else case.is_old()
    assert case.repaired()


HELD: dict[str, tuple[tuple[str, ...], str, str]] = {
    "planning": (("build", "--push"), "HEAD", IMMUTABLE),
    "pushing what was built earlier": (("push",), "POST", "/blobs/uploads/"),
    "pushing what is built": (("build", "--push", "--only", "python=3.13"), "POST", "/blobs/uploads/"),
}


@pytest.mark.parametrize("stage", HELD)
def test_interrupted_while_the_registry_does_not_answer(case: Case, stage: str) -> None:
    """Broken: Ctrl-C waits for a registry that does not answer."""
    arguments, method, path = HELD[stage]
    process = case.nightly.start(*arguments)
    interrupted: list[float] = []

    def hold(_: Exchange) -> Hold:
        if not interrupted:
            interrupted.append(time.monotonic())
            process.send_signal(signal.SIGINT)
        return Hold()

    case.proxy.on(method, path, Call(hold), times=None)
    _, stderr = process.communicate(timeout=180)
    assert time.monotonic() - interrupted[0] < 30  # 0.5 on a quiet machine; the registry holds for ever
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert case.is_old()


def test_one_cell_fails_while_the_other_is_pushed(open_registry: Registry, tmp_path: Path, seeds: Seeds) -> None:
    """Broken: a failed cell lets moving tags move, or pushed images are built again."""
    nightly = Nightly(folder=tmp_path, repository=f"{open_registry.host}/faults/one-cell", env={})
    nightly.lock(idna=OLD)
    nightly.matrix()
    seeds.publish(nightly)
    before = standing(open_registry.host, "faults/one-cell")
    nightly.lock(idna=NEW)
    good = (tmp_path / "matrix.toml").read_text()
    broken = '[bases.broken]\nimage = "docker.io/library/python:{python}-slim-bookworm"\nfamily = "debian"\n'
    broken += 'packages = ["no-such-package-anywhere"]\n'
    bad = good.replace('base = ["slim"]', 'base = ["slim", "broken"]') + broken
    (tmp_path / "matrix.toml").write_text(
        bad.replace("\n\n", '\nexclude = [{ python = "3.11", base = "broken" }]\n\n', 1)
    )
    done = nightly.builder("build", "--push")
    assert done.returncode == 1, done.stderr
    assert "no moving tag was moved" in done.stderr
    assert standing(open_registry.host, "faults/one-cell") == before
    (tmp_path / "matrix.toml").write_text(good)
    assert nightly.builder("build", "--push", env=NO_ENGINE).returncode == 0
    assert set(standing(open_registry.host, "faults/one-cell").values()).isdisjoint(before.values())


@pytest.mark.parametrize(
    ("repository", "said"),
    [
        ("no-such-host.invalid/acme/ci", "cannot reach the registry no-such-host.invalid"),
        ("127.0.0.1:1/acme/ci", "127.0.0.1:1"),
    ],
)
def test_unknown_registry(tmp_path: Path, repository: str, said: str) -> None:
    """Broken: an unknown registry is reported only after a build."""
    nightly = Nightly(folder=tmp_path, repository=repository, env={})
    nightly.lock()
    nightly.matrix()
    done = nightly.builder("build", "--push", env=NO_ENGINE)
    assert (done.returncode, done.stdout) == (3, "")
    assert said in done.stderr


def test_portal_before_the_registry(faulty: FaultProxy, tmp_path: Path) -> None:
    """Broken: the nightly rebuild ends with 0 and builds nothing, because a portal answers for the registry."""
    nightly = Nightly(folder=tmp_path, repository=f"{faulty.host}/faults/portal", env={})
    nightly.lock()
    nightly.matrix()
    faulty.on(".*", "", Answer(status=200, body=b"<html>please log in</html>"), times=None)
    done = nightly.builder("build", "--push", env=NO_ENGINE)
    assert (done.returncode, done.stdout) == (3, "")
    assert f"{faulty.host}/faults/portal" in done.stderr
    assert "the answer is not a manifest" in done.stderr
