"""The lease on a repository's tags, whatever the clocks of other machines say."""

from __future__ import annotations

import json
import time
from datetime import datetime, timedelta, timezone

import pytest

from builder.errors import PublishError
from builder.oci.reference import ImageRef, Mirrors
from builder.oci.registry import Registries
from builder.release import lease

REPOSITORY = ImageRef.from_str("registry.example.com/acme/ci")
REGISTRIES = Registries(Mirrors())
SECONDS = 0.4


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch) -> dict[ImageRef, str]:
    """The notes in a registry; leases are short."""
    found: dict[ImageRef, str] = {}
    monkeypatch.setattr(lease, "fetch_note", lambda tag, *_: found.get(tag))
    monkeypatch.setattr(lease, "put_note", lambda tag, _, text, __: found.update({tag: text}))
    monkeypatch.setattr(lease, "DURATION", timedelta(seconds=SECONDS))
    monkeypatch.setattr(lease, "_SETTLE", 0.01)
    monkeypatch.setattr(lease, "_POLL_PERIOD", 0.01)
    return found


def note(until: datetime) -> str:
    """What another run wrote."""
    return json.dumps({"id": "other", "holder": "a run elsewhere", "until": until.isoformat()})


def test_dead_run_with_a_clock_ahead(notes: dict[ImageRef, str]) -> None:
    """Broken: a run that was killed on a machine with a wrong clock, or a forged lease, blocks all others for good."""
    notes[REPOSITORY.with_tag("builder-lease")] = note(datetime.max.replace(tzinfo=timezone.utc))
    begun = time.monotonic()
    with lease.held(REPOSITORY, REGISTRIES):
        assert time.monotonic() - begun > SECONDS


def test_living_run_with_a_clock_behind(notes: dict[ImageRef, str]) -> None:
    """Broken: a run takes the lease from one that still works, on a machine whose clock is behind."""
    holder = lease.Lease(REPOSITORY, REGISTRIES)
    holder.take()
    tag = REPOSITORY.with_tag("builder-lease")
    notes[tag] = json.dumps({**json.loads(notes[tag]), "until": "2001-01-01T00:00:00+00:00"})
    begun = time.monotonic()
    lease.Lease(REPOSITORY, REGISTRIES).take()
    assert time.monotonic() - begun > SECONDS
    with pytest.raises(PublishError, match="took too long"):
        holder.check()


def test_lease_that_is_prolonged(notes: dict[ImageRef, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: a run takes the lease from one that prolongs it."""
    monkeypatch.setattr(lease, "_LONGEST_WAIT", 1.5 * SECONDS)
    holder = lease.Lease(REPOSITORY, REGISTRIES)
    holder.take()

    def pause(_: Registries, seconds: float) -> None:
        time.sleep(seconds)
        holder.check()

    monkeypatch.setattr(Registries, "pause", pause)
    with pytest.raises(PublishError, match="is moving or deleting tags"):
        lease.Lease(REPOSITORY, REGISTRIES).take()


def test_lease_that_was_given_back(notes: dict[ImageRef, str]) -> None:
    """Broken: a run waits for one that has finished."""
    with lease.held(REPOSITORY, REGISTRIES):
        pass
    begun = time.monotonic()
    with lease.held(REPOSITORY, REGISTRIES):
        assert time.monotonic() - begun < SECONDS
