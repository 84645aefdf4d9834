"""Runs at the same time, and runs that were killed: no tag in use is lost, and no run overwrites what another did."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone

import pytest

from builder.errors import BuilderError, PublishError, RegistryError
from builder.oci.manifest import Manifest
from builder.oci.reference import Digest, ImageRef, Mirrors
from builder.oci.registry import Registries
from builder.release import lease
from builder.release.immutable import put_immutable
from builder.release.journal import Move, fetch_journal, journal_of
from builder.release.lease import held
from builder.release.promote import fetch_rollback, promote
from builder.release.prune import Retention, delete_unused, fetch_candidates
from tests.commandline import builder
from tests.integration.conftest import own_name
from tests.integration.faults import Answer, Call, Exchange, FaultProxy, HangUp, between
from tests.integration.nightly import put_foreign, standing
from tests.integration.registries import Registry, an_open_registry

__all__ = ["an_open_registry"]

TAGS = ("3.11-slim", "3.13-slim")
MOVING = r"/manifests/3\.1[13]-slim$"
KEY = "0123456789ab"
JOURNAL = "/manifests/builder-journal$"

pytestmark = pytest.mark.usefixtures("clean_environment")

# A promotion as `builder promote` makes it, without a project: `repository {"tag": [old, new]}`.
PROMOTE = """
import json, sys
from builder.cli.output.messages import print_error
from builder.errors import BuilderError
from builder.oci.reference import Digest, ImageRef, Mirrors
from builder.oci.registry import Registries
from builder.release.journal import Move, journal_of
from builder.release.publisher import RegistryPublisher

digest = lambda text: Digest.from_str(text) if text else None
moves = [Move(tag=tag, old=digest(old), new=digest(new)) for tag, (old, new) in json.loads(sys.argv[2]).items()]
publisher = RegistryPublisher(registries=Registries(Mirrors()), compression="gzip")
try:
    publisher.move(journal_of(ImageRef.from_str(sys.argv[1]), ""), moves)
except BuilderError as error:
    print_error(error)
    sys.exit(error.exit_code)
"""


class Case:
    """A repository behind a fault proxy, with three sets of images; the tags name the first."""

    def __init__(self, proxy: FaultProxy, registry: Registry, path: str) -> None:
        self.proxy, self.registry, self.path = proxy, registry, path
        self.repository = ImageRef.from_str(f"{proxy.host}/{path}")
        self.registries = Registries(Mirrors())
        self.sets = [{tag: self.image(f"{tag}-{name}") for tag in TAGS} for name in ("old", "one", "two")]
        for tag, digest in self.sets[0].items():
            self.tag(tag, digest)

    def image(self, name: str) -> str:
        """Put an image; return its digest."""
        return put_foreign(self.registry.host, self.path, name, {"name": name})

    def tag(self, tag: str, digest: str) -> None:
        """Move a tag as another program would, past the proxy."""
        past = ImageRef.from_str(f"{self.registry.host}/{self.path}")
        manifest = self.registries.fetch_manifest(past.with_digest(Digest.from_str(digest)))
        assert manifest
        self.registries.put_manifest(past.with_tag(tag), manifest)

    def standing(self) -> Mapping[str, str | None]:
        """What the moving tags name."""
        return standing(self.registry.host, self.path, TAGS)

    def start(self, old: int, new: int) -> subprocess.Popen[str]:
        """Start to promote from one set to another."""
        moves = {tag: [self.sets[old][tag], self.sets[new][tag]] for tag in TAGS}
        argv = [sys.executable, "-c", PROMOTE, str(self.repository), json.dumps(moves)]
        return subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)

    def promote(self, old: int, new: int) -> tuple[int, str]:
        """Promote; return the exit code and what was said."""
        process = self.start(old, new)
        _, said = process.communicate(timeout=120)
        return process.returncode, said


@pytest.fixture
def case(open_registry: Registry, request: pytest.FixtureRequest) -> Iterator[Case]:
    """A repository of this test alone."""
    with between(open_registry.host) as proxy:
        yield Case(proxy, open_registry, own_name(request))


def one_of_two(case: Case) -> tuple[int, int, str]:
    """Promote sets 1 and 2 at the same moment, which one of them must win.

    Return the winner's set and its process id, and what the other one said.
    """
    barrier = threading.Barrier(2, timeout=60)

    def meet(_: Exchange) -> None:
        barrier.wait()

    case.proxy.on("GET", "/manifests/builder-lease$", Call(meet), times=2)
    processes = [case.start(0, 1), case.start(0, 2)]
    said = [process.communicate(timeout=120)[1] for process in processes]
    assert sorted(process.returncode for process in processes) == [0, 4], said
    won = [process.returncode for process in processes].index(0)
    assert case.standing() == case.sets[won + 1]
    return won + 1, processes[won].pid, said[1 - won]


def test_two_promotions_at_once(case: Case) -> None:
    """Broken: of two promotions at once both end with 0, and one is gone from tags and journal."""
    won, pid, said_by_loser = one_of_two(case)
    assert f"by process {pid}" in said_by_loser
    (entry,) = fetch_journal(journal_of(case.repository, ""), case.registries)
    assert entry.complete
    assert {move.tag: str(move.new) for move in entry.moves} == case.sets[won]


def test_promotions_of_different_tags_at_once(case: Case) -> None:
    """Broken: two promotions at once, each of one tag, leave the tags on parts of two sets that nobody promoted."""
    old = case.sets[0]
    case.sets[1] = {TAGS[0]: case.sets[1][TAGS[0]], TAGS[1]: old[TAGS[1]]}
    case.sets[2] = {TAGS[0]: old[TAGS[0]], TAGS[1]: case.sets[2][TAGS[1]]}
    one_of_two(case)
    (entry,) = fetch_journal(journal_of(case.repository, ""), case.registries)
    assert len(entry.moves) == 1


def test_promotion_between_reading_and_rolling_back(case: Case) -> None:
    """Broken: a rollback undoes one promotion while another one moves other tags, and leaves parts of both."""
    old, one = case.sets[0], case.sets[1]
    case.sets[1] = {TAGS[0]: one[TAGS[0]], TAGS[1]: old[TAGS[1]]}
    assert case.promote(0, 1)[0] == 0
    case.sets[2] = {TAGS[0]: one[TAGS[0]], TAGS[1]: case.sets[2][TAGS[1]]}

    def promote_too(_: Exchange) -> None:
        case.proxy.forget()
        assert case.promote(1, 2)[0] == 0

    case.proxy.on("GET", "/manifests/builder-lease$", Call(promote_too))
    done = builder("rollback", "--repository", str(case.repository))
    assert done.exit_code == 4
    assert "somebody else moved tags" in done.stderr
    assert case.standing() == case.sets[2]


def test_promotion_after_one_that_was_killed(case: Case) -> None:
    """Broken: the journal says that a killed promotion moved a tag which it did not reach."""
    process = case.start(0, 1)

    def kill(_: Exchange) -> HangUp:
        process.kill()
        return HangUp()

    case.proxy.on("PUT", MOVING, Call(kill), nth=2)
    process.communicate(timeout=60)
    first, second = (
        tag for tag, digest in sorted(case.standing().items(), key=lambda each: each[1] == case.sets[0][each[0]])
    )
    case.sets[1] = {first: case.sets[1][first], second: case.sets[0][second]}
    case.sets[2] = {first: case.sets[2][first], second: case.sets[0][second]}
    assert case.standing() == case.sets[1]
    assert case.promote(1, 2)[0] == 0
    (entry,) = fetch_journal(journal_of(case.repository, ""), case.registries)
    assert {move.tag: (str(move.old), str(move.new)) for move in entry.moves} == {
        first: (case.sets[0][first], case.sets[2][first])
    }


def test_undo_leaves_what_others_moved(case: Case) -> None:
    """Broken: undoing a promotion overwrites a tag that somebody else moved, and says that no tag has changed."""
    other = case.sets[2][TAGS[0]]

    def move_and_refuse(_: Exchange) -> Answer:
        case.tag(TAGS[0], other)
        return Answer(status=403)

    case.proxy.on("PUT", MOVING, Call(move_and_refuse), nth=2)
    code, said = case.promote(0, 1)
    assert code == 4
    assert case.standing() == {TAGS[0]: other, TAGS[1]: case.sets[0][TAGS[1]]}
    assert f"{TAGS[0]}: {other}, moved by somebody else" in said
    assert f"{TAGS[1]}: {case.sets[0][TAGS[1]]}" in said
    assert "no tag has changed" not in said


def test_tag_moved_between_two_moves(case: Case) -> None:
    """Broken: a tag that somebody else moves while a promotion is under way is overwritten."""
    other = case.sets[2][TAGS[1]]
    case.proxy.on("PUT", MOVING, Call(lambda _: case.tag(TAGS[1], other)))
    code, said = case.promote(0, 1)
    assert code == 4
    assert case.standing() == {TAGS[0]: case.sets[0][TAGS[0]], TAGS[1]: other}
    assert f"somebody else moved {TAGS[1]} to {other}" in said


def test_killed_before_the_journal_was_written(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: a promotion that was killed after its last move is skipped by a later rollback."""
    process = case.start(0, 1)

    def kill(_: Exchange) -> HangUp:
        process.kill()
        return HangUp()

    case.proxy.on("PUT", JOURNAL, Call(kill), nth=2)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert case.standing() == case.sets[1]
    assert case.promote(1, 2)[0] == 0
    journal = journal_of(case.repository, "")
    assert [entry.complete for entry in fetch_journal(journal, case.registries)] == [True, True]
    assert {move.tag: str(move.new) for move in fetch_rollback(journal, case.registries)[1]} == case.sets[1]


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let leases end after four seconds: a busy machine may take one for a single request."""
    monkeypatch.setattr(lease, "DURATION", timedelta(seconds=4))


def test_lease_of_a_killed_run_ends(case: Case, short: None) -> None:
    """Broken: after a run was killed, no other can ever move a tag."""
    killed = lease.Lease(case.repository, case.registries)
    killed.take()
    begun = time.monotonic()
    with held(case.repository, case.registries):
        assert 1 < time.monotonic() - begun < 20
        with pytest.raises(PublishError, match="the lease is now with process"):
            killed.check()


def test_lease_is_prolonged_and_given_back(case: Case, short: None) -> None:
    """Broken: a run with many tags loses its lease, or the next run waits after it has finished."""
    with held(case.repository, case.registries) as holding:
        for _ in range(5):
            time.sleep(1)
            holding.check()
    begun = time.monotonic()
    with held(case.repository, case.registries):
        assert time.monotonic() - begun < 3.8


def test_one_holder_at_a_time(case: Case) -> None:
    """Broken: two of many runs that want the lease at once have it at once."""
    inside, most = [], []

    def hold(number: int) -> None:
        with held(case.repository, Registries(Mirrors())) as holding:
            inside.append(number)
            most.append(len(inside))
            holding.check()
            inside.remove(number)

    with ThreadPoolExecutor(5) as pool:
        list(pool.map(hold, range(5)))
    assert most == [1] * 5


def unused(case: Case, number: int) -> tuple[str, str]:
    """Put an image of builder that nothing uses; return its tag and its digest."""
    key = f"{number:012x}".ljust(64, "0")
    labels = {"io.gitlab.prebuilt.cell": "3.12-slim", "io.gitlab.prebuilt.key": key}
    return f"3.12-slim-{key[:12]}", put_foreign(case.registry.host, case.path, f"3.12-slim-{key[:12]}", labels)


def retention(hours: int = 0) -> Retention:
    """Keep nothing, but what was pushed in the latest hours."""
    now = datetime.now(timezone.utc)
    return Retention(
        generations=0, keys=(), pushed_after=now - timedelta(hours=hours), promoted_after=now, deleted_branch=""
    )


@pytest.mark.parametrize("tag", ["3.12-slim", "new-tag"])
def test_prune_spares_what_was_promoted_meanwhile(case: Case, tag: str) -> None:
    """Broken: prune deletes an image that a tag has named since prune read the tags, and the tag with it."""
    (one, kept), (two, _) = unused(case, 1), unused(case, 2)
    case.tag("3.12-slim", case.sets[0][TAGS[0]])
    case.proxy.on("GET", "/tags/list", Call(lambda _: case.tag(tag, kept)), nth=2)
    deleted = [each.ref.tag for each in delete_unused(case.repository, case.registries, retention())]
    assert deleted == [two]
    assert standing(case.registry.host, case.path, (tag, one, two)) == {tag: kept, one: kept, two: None}


def test_prune_of_unverified_images(case: Case) -> None:
    """Broken: images that no job has verified stay for good, or one that has two tags stays or stops prune."""
    (one, digest), (two, other) = unused(case, 1), unused(case, 2)
    case.tag(f"{one}-unverified", digest)
    labels = {"io.gitlab.prebuilt.cell": "3.12-slim", "io.gitlab.prebuilt.key": "3".ljust(64, "0")}
    put_foreign(case.registry.host, case.path, "3.12-slim-300000000000-unverified", labels)
    case.tag("3.12-slim", other)
    deleted = {str(each.ref.tag) for each in delete_unused(case.repository, case.registries, retention())}
    assert deleted == {one, f"{one}-unverified", "3.12-slim-300000000000-unverified"}
    assert standing(case.registry.host, case.path, (*deleted, two)) == {**dict.fromkeys(deleted), two: other}


def test_prune_spares_what_was_verified_meanwhile(case: Case) -> None:
    """Broken: prune deletes an image that got its immutable tag since prune read the tags, and the tag with it."""
    labels = {"io.gitlab.prebuilt.cell": "3.12-slim", "io.gitlab.prebuilt.key": "1".ljust(64, "0")}
    tag = "3.12-slim-100000000000"
    digest = put_foreign(case.registry.host, case.path, f"{tag}-unverified", labels)
    case.proxy.on("GET", "/tags/list", Call(lambda _: case.tag(tag, digest)), nth=2)
    assert list(delete_unused(case.repository, case.registries, retention())) == []
    assert standing(case.registry.host, case.path, (tag,)) == {tag: digest}


def test_prune_and_promotion_take_turns(case: Case) -> None:
    """Broken: a promotion to an image that prune is deleting loses its tags, with exit code 0 on both sides."""
    tag, digest = unused(case, 1)
    case.sets[1] = dict.fromkeys(TAGS, digest)
    started: list[subprocess.Popen[str]] = []

    def begin(_: Exchange) -> None:
        started.append(case.start(0, 1))
        end = time.monotonic() + 8
        while case.standing() == case.sets[0] and time.monotonic() < end:
            time.sleep(0.2)

    case.proxy.on("DELETE", "", Call(begin))
    assert [each.ref.tag for each in delete_unused(case.repository, case.registries, retention())] == [tag]
    _, said = started[0].communicate(timeout=120)
    assert started[0].returncode == 4, said
    assert "no longer has the manifest" in said
    assert case.standing() == case.sets[0]


def test_recently_pushed_image_stays(case: Case) -> None:
    """Broken: prune deletes an image that a run is about to promote, because its build date is in the past."""
    tag, digest = unused(case, 1)
    manifest = case.registries.fetch_manifest(case.repository.with_digest(Digest.from_str(digest)))
    assert manifest
    assert [each.ref.tag for each in fetch_candidates(case.repository, case.registries, retention(24))] == [tag]
    pushed = case.repository.with_tag("3.12-slim-" + "2".rjust(12, "0"))
    labels = {"io.gitlab.prebuilt.cell": "3.12-slim", "io.gitlab.prebuilt.key": "2".rjust(12, "0").ljust(64, "0")}
    other = put_foreign(case.registry.host, case.path, "other", labels)
    image = case.registries.fetch_manifest(case.repository.with_digest(Digest.from_str(other)))
    assert image
    put_immutable(pushed, labels["io.gitlab.prebuilt.key"], image, case.registries)
    assert [each.ref.tag for each in fetch_candidates(case.repository, case.registries, retention(24))] == [tag]
    assert len(fetch_candidates(case.repository, case.registries, retention(0))) == 2


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_same_immutable_tag_at_once(case: Case, order: tuple[int, int]) -> None:
    """Broken: of two machines that push one key at once, the later overwrites the tag that the first promotes."""
    ref = case.repository.with_tag(f"3.12-slim-{KEY}")
    labels = {"io.gitlab.prebuilt.key": KEY.ljust(64, "0")}
    images = []
    for name in ("a", "b"):
        digest = put_foreign(case.registry.host, case.path, name, {**labels, "name": name})
        images.append(case.registries.fetch_manifest(case.repository.with_digest(Digest.from_str(digest))))
    looked = threading.Barrier(2, timeout=30)
    arrived: list[int] = []
    turns = [threading.Event(), threading.Event()]

    def in_turn(_: Exchange) -> None:
        number = len(arrived)
        arrived.append(number)
        looked.wait()
        if order[number]:
            turns[0].wait(10)
            time.sleep(0.1)
        turns[0].set()

    case.proxy.on("PUT", f"/manifests/{ref.tag}$", Call(in_turn), times=2)

    def push(image: Manifest) -> Digest:
        return put_immutable(ref, labels["io.gitlab.prebuilt.key"], image, Registries(Mirrors()))

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(push, images)
    assert first == second == case.registries.fetch_digest(ref)


@pytest.mark.parametrize("refusal", [412, 400, 409])
def test_registry_that_keeps_the_first(case: Case, refusal: int) -> None:
    """Broken: where a registry refuses to replace an immutable tag, the second machine fails."""
    ref = case.repository.with_tag(f"3.12-slim-{KEY}")
    labels = {"io.gitlab.prebuilt.key": KEY.ljust(64, "0")}
    image = case.registries.fetch_manifest(
        case.repository.with_digest(Digest.from_str(put_foreign(case.registry.host, case.path, "a", labels)))
    )
    assert image

    def refuse(exchange: Exchange) -> Answer:
        assert exchange.headers["if-none-match"] == "*"
        case.tag(str(ref.tag), str(image.digest))
        return Answer(status=refusal)

    case.proxy.on("PUT", f"/manifests/{ref.tag}$", Call(refuse))
    assert put_immutable(ref, labels["io.gitlab.prebuilt.key"], image, case.registries) == image.digest


FORGED: dict[str, Callable[[Case], object]] = {
    "tag list": lambda case: fetch_candidates(case.repository, case.registries, retention()),
    "tag list, deleting": lambda case: list(delete_unused(case.repository, case.registries, retention())),
}


@pytest.mark.parametrize("door", FORGED)
@pytest.mark.parametrize("tag", ["../../other/manifests/x", "..", "a/b", "", "a?b", "x" * 129, "a\n"])
def test_forged_tag(case: Case, door: str, tag: str) -> None:
    """Broken: a tag in a list leads to another repository."""
    case.proxy.on("GET", "/tags/list", Answer(status=200, body=json.dumps({"tags": [tag]}).encode()), times=None)
    with pytest.raises(RegistryError, match="did not send a list of tags"):
        FORGED[door](case)
    assert not [each.path for each in case.proxy.seen() if "/other/" in each.path or ".." in each.path]


def test_promotion_needs_the_lease(case: Case, short: None) -> None:
    """Broken: a run whose lease ended moves tags all the same."""
    holding = lease.Lease(case.repository, case.registries)
    holding.take()
    time.sleep(4.2)
    moves = [Move(tag=TAGS[0], old=Digest.from_str(case.sets[0][TAGS[0]]), new=Digest.from_str(case.sets[1][TAGS[0]]))]
    with pytest.raises(BuilderError, match="took too long"):
        promote(journal_of(case.repository, ""), moves, case.registries, holding)
    assert case.standing() == case.sets[0]
