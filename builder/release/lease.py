"""The lease on a repository's tags: of all runs on all machines, one at a time moves or deletes tags.

It is a note in the registry under the tag `builder-lease`: who holds it, and until when by that machine's clock.
Registries cannot compare and swap, so whoever takes the lease waits before reading it back (Fischer's algorithm),
longer than it took to write it. The holder looks again before each change, and prolongs it. Whoever waits believes no
other machine's clock: a lease has ended when its holder says so, or when it was seen unchanged for as
long as one lasts.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import time
import uuid
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Annotated, Final

from pydantic import StringConstraints

from builder.contract import LEASE_LABEL, LEASE_TAG
from builder.errors import PublishError, RegistryError
from builder.oci.reference import ImageRef
from builder.oci.registry import Registries
from builder.parse import Document, MalformedError, OneLine, UtcTime, parse_document
from builder.release.note import fetch_note, put_note

DURATION: Final = timedelta(seconds=30)
_GIVEN_BACK: Final = datetime.fromtimestamp(0, timezone.utc)
_LONGEST_WAIT: Final = 180.0  # seconds, for those who hold it before
_SETTLE: Final = 0.5  # seconds between writing the lease and reading it back, at least
_LONGEST_NAME: Final = 1000  # characters
_POLL_PERIOD: Final = 0.5  # seconds


class _LeaseNote(Document):
    """The lease as it is in the registry."""

    id: Annotated[str, StringConstraints(max_length=_LONGEST_NAME)]
    holder: Annotated[OneLine, StringConstraints(max_length=_LONGEST_NAME)]
    until: UtcTime


class Lease:
    """The lease while it is held; see `held`. `holder` names the run to users."""

    def __init__(self, repository: ImageRef, registries: Registries) -> None:
        self.holder = (
            os.environ.get("CI_JOB_URL", "")[:_LONGEST_NAME]
            or f"process {os.getpid()} on {platform.node() or 'some machine'}"
        )
        self._tag = repository.with_tag(LEASE_TAG)
        self._registries = registries
        self._id = uuid.uuid4().hex
        self._end = time.monotonic()

    def check(self) -> None:
        """Raise PublishError unless the lease is still this run's; prolong it in good time."""
        standing = self._fetch()
        if standing is None or standing.id != self._id or time.monotonic() > self._end:
            other = standing.holder if standing and standing.id != self._id else "nobody"
            raise PublishError(
                f"this run took too long to move or delete tags of {self._tag.name}; the lease is now with {other}",
                hint="run again: the next run starts from the current tags",
            )
        if time.monotonic() > self._end - DURATION.total_seconds() / 2:
            self._put()

    def take(self) -> None:
        """Take the lease, after whoever has it now; raise PublishError if that takes minutes."""
        end = time.monotonic() + _LONGEST_WAIT
        seen, since = None, 0.0
        while True:
            begun = time.monotonic()
            standing = self._fetch()
            if standing != seen:
                seen, since = standing, time.monotonic()
            is_over = time.monotonic() - since > DURATION.total_seconds()
            if standing is None or standing.until == _GIVEN_BACK or is_over:
                self._put()
                self._registries.pause(max(_SETTLE, 2 * (time.monotonic() - begun)))
                standing = self._fetch()
                if standing and standing.id == self._id:
                    return
            if time.monotonic() > end:
                who = standing.holder if standing else "somebody else"
                raise PublishError(
                    f"{who} is moving or deleting tags of {self._tag.name}",
                    hint=f"run again when it has finished; if it never does, delete the tag {LEASE_TAG}",
                )
            self._registries.pause(_POLL_PERIOD)

    def give_back(self) -> None:
        """Let others take the lease at once, if the registry answers; otherwise it ends by itself."""
        with contextlib.suppress(RegistryError):
            standing = self._fetch()
            if standing and standing.id == self._id:
                self._put_note(_GIVEN_BACK)

    def _fetch(self) -> _LeaseNote | None:
        text = fetch_note(self._tag, LEASE_LABEL, self._registries)
        try:
            return None if text is None else parse_document(_LeaseNote, text)
        except MalformedError as error:
            raise PublishError(
                f"{self._tag} is not a lease of builder: {error}",
                hint="another tool uses that tag; choose another repository for the images",
            ) from error

    def _put(self) -> None:
        self._end = time.monotonic() + DURATION.total_seconds()  # from before it is written
        self._put_note(datetime.now(timezone.utc) + DURATION)

    def _put_note(self, until: datetime) -> None:
        note = {"id": self._id, "holder": self.holder, "until": until.isoformat()}
        put_note(self._tag, LEASE_LABEL, json.dumps(note, sort_keys=True), self._registries)


@contextlib.contextmanager
def held(repository: ImageRef, registries: Registries) -> Iterator[Lease]:
    """Hold the lease on a repository's tags for the block; raise PublishError if others hold it for minutes."""
    lease = Lease(repository, registries)
    lease.take()
    try:
        yield lease
    finally:
        lease.give_back()
