"""The store of layers: what is damaged, killed or old costs time, and never gives a wrong layer."""

from __future__ import annotations

import contextlib
import os
import time
from datetime import datetime, timezone
from pathlib import Path

import pytest

from builder.layer.find import find_stored
from builder.layer.plan import Layer
from builder.layer.store import LayerStore, StoredLayer, digest_of_file
from builder.oci.reference import Digest
from tests.layers import digest

CONTENT = b"a layer"
KEY = "5" * 64


@pytest.fixture
def store(tmp_path: Path) -> LayerStore:
    """An empty store, whose folder does not exist yet."""
    return LayerStore(folder=tmp_path / "layers")


def put(store: LayerStore, key: str = KEY, content: bytes = CONTENT, *, branch: str = "") -> StoredLayer:
    """Store a layer."""
    store.write(content)
    layer = StoredLayer(
        key=key,
        digest=str(digest(content)),
        size=len(content),
        media_type="application/vnd.oci.image.layer.v1.tar+gzip",
        diff_id="sha256:" + "d" * 64,
    )
    store.add(layer, branch)
    return layer


def age(path: Path, days: float) -> None:
    """Make a file look as if it was last used so many days ago."""
    then = time.time() - days * 86400
    os.utime(path, (then, then))


def files(store: LayerStore) -> list[str]:
    """Every file of the store."""
    return sorted(path.relative_to(store.folder).as_posix() for path in store.folder.glob("*/*"))


def test_layer_is_found_by_its_key(store: LayerStore) -> None:
    """Broken: every layer is made again in each run."""
    assert store.find(KEY, "") is None
    layer = put(store)
    assert store.find(KEY, "") == layer
    assert store.find("6" * 64, "") is None
    assert store.read(digest(CONTENT)) == CONTENT
    assert layer.descriptor["annotations"] == {
        "io.gitlab.prebuilt.layer": KEY,
        "io.gitlab.prebuilt.diff-id": layer.diff_id,
    }


def test_order_of_layers(store: LayerStore) -> None:
    """Broken: an image that this machine assembled is assembled in another order the next time, as another image."""
    assert store.order(["one", "two"]) == ()
    store.add_order("two", ["c", "a"])
    assert store.order(["one", "two"]) == ("c", "a")
    store.add_order("one", [])
    assert store.order(["one", "two"]) == ()


def test_blob_with_other_bytes_is_removed(store: LayerStore) -> None:
    """Broken: a layer that a disk damaged gets into images."""
    put(store)
    store.path(digest(CONTENT)).write_bytes(b"another layer")
    assert store.find(KEY, "") is None
    assert not store.path(digest(CONTENT)).exists()
    put(store)
    assert store.find(KEY, "")


def test_lost_blob(store: LayerStore) -> None:
    """Broken: a record without its blob is taken for a layer."""
    put(store)
    store.path(digest(CONTENT)).unlink()
    assert store.find(KEY, "") is None
    assert store.read(digest(CONTENT)) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"key": 5}', "\x00", f'{{"key": "{KEY}", "digest": "../../x"}}'])
def test_damaged_record(store: LayerStore, text: str) -> None:
    """Broken: a record that was cut off causes a traceback."""
    put(store)
    (store.folder / "keys" / f"{KEY}.json").write_text(text, encoding="utf-8")
    assert store.find(KEY, "") is None


def test_record_under_the_name_of_another_key(store: LayerStore) -> None:
    """Broken: a record that was copied or renamed gives an image another layer than it asks for."""
    put(store)
    other = "6" * 64
    (store.folder / "keys" / f"{KEY}.json").rename(store.folder / "keys" / f"{other}.json")
    assert store.find(other, "") is None


def test_blob_that_was_not_finished_leaves_nothing(store: LayerStore) -> None:
    """Broken: a failed build fills the disk, or leaves a blob that lacks its end."""
    with contextlib.suppress(RuntimeError), store.new_blob() as file:
        file.write(b"half")
        raise RuntimeError
    assert files(store) == []


def test_two_writers_of_one_layer(store: LayerStore) -> None:
    """Broken: two builds that make the same layer at once break each other."""
    with store.new_blob() as one, store.new_blob() as two:
        for file in (one, two):
            file.write(CONTENT)
            file.flush()
            store.keep(Path(file.name), digest(CONTENT))
    assert files(store) == [f"blobs/{digest(CONTENT).hex}"]
    assert store.has(digest(CONTENT))


def test_what_was_not_used_for_a_month_is_removed(store: LayerStore) -> None:
    """Broken: the store grows without end, or loses what is in use."""
    put(store)
    put(store, "6" * 64, b"old")
    store.add_size("7" * 64, 12)
    age(store.path(digest(b"old")), 31)
    age(store.folder / "keys" / f"{'6' * 64}.json", 31)
    age(store.folder / "sizes" / ("7" * 64), 31)
    store.sweep()
    assert files(store) == [f"blobs/{digest(CONTENT).hex}", f"keys/{KEY}.json"]


def test_what_is_used_every_day_stays(store: LayerStore) -> None:
    """Broken: a layer in daily use is made again each month, or the same image gets a new time and a new digest."""
    put(store)
    first = store.first_time("8" * 64)
    store.add_size("7" * 64, 12)
    for name in files(store):
        age(store.folder / name, 29)
    assert store.find(KEY, "")
    assert store.first_time("8" * 64) == first
    assert store.size_of("7" * 64) == 12
    before = files(store)
    for name in before:
        assert (store.folder / name).stat().st_mtime > time.time() - 86400, name
    store.sweep()
    assert files(store) == before


def test_leftovers_of_killed_runs_are_removed(store: LayerStore) -> None:
    """Broken: a run that was killed while it wrote fills the disk, or the sweep takes a file from a run that writes."""
    put(store)
    old, new = f".{KEY}.json.7-1", f".{KEY}.json.8-1"
    for name in (f"keys/{old}", f"keys/{new}", "blobs/.new-old", "blobs/.new-new"):
        (store.folder / name).write_bytes(b"half")
    for name in (f"keys/{old}", "blobs/.new-old"):
        age(store.folder / name, 2)
    store.sweep()
    expected = ["blobs/.new-new", f"blobs/{digest(CONTENT).hex}", f"keys/{KEY}.json", f"keys/{new}"]
    assert sorted(files(store)) == sorted(expected)


def test_files_of_others_stay(store: LayerStore) -> None:
    """Broken: a folder that was there before, and that somebody names as cache, loses what is old in it."""
    put(store)
    for name in ("blobs/holiday.psd", "pictures/.hidden"):
        (store.folder / name).parent.mkdir(exist_ok=True)
        (store.folder / name).write_bytes(b"mine")
        age(store.folder / name, 400)
    store.sweep()
    assert {"blobs/holiday.psd", "pictures/.hidden"} <= set(files(store))


def test_sweep_of_no_store(store: LayerStore) -> None:
    """Broken: the first run on a machine fails."""
    store.sweep()


def test_time_is_that_of_the_first_run(store: LayerStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: the same layers give an image with another digest in each run."""
    first = store.first_time("8" * 64)
    assert abs((datetime.now(timezone.utc) - first).total_seconds()) < 60
    assert first.microsecond == 0
    path = store.folder / "times" / ("8" * 64)
    path.write_text("1000000000", encoding="ascii")
    assert store.first_time("8" * 64) == datetime(2001, 9, 9, 1, 46, 40, tzinfo=timezone.utc)


@pytest.mark.parametrize("text", ["", "-5", "1e9", "٣", "9" * 12, "\xff"])
def test_damaged_number(store: LayerStore, text: str) -> None:
    """Broken: a damaged note of a size or a time causes a traceback."""
    store.add_size("7" * 64, 12)
    (store.folder / "sizes" / ("7" * 64)).write_text(text, encoding="utf-8")
    assert store.size_of("7" * 64) is None


def test_store_that_cannot_be_written(tmp_path: Path) -> None:
    """Broken: a small note that cannot be stored fails a build."""
    (tmp_path / "layers").write_text("a file, not a folder", encoding="ascii")
    store = LayerStore(folder=tmp_path / "layers")
    assert store.write(CONTENT) == CONTENT
    store.add_size("7" * 64, 12)
    assert store.first_time("8" * 64)
    assert store.find(KEY, "") is None


def test_digest_of_a_large_file(tmp_path: Path) -> None:
    """Broken: a blob of several chunks has a wrong digest."""
    content = bytes(range(256)) * 8200
    path = tmp_path / "blob"
    path.write_bytes(content)
    assert digest_of_file(path) == digest(content)
    assert digest_of_file(path) != Digest(algorithm="sha256", hex="0" * 64)


def test_proven_layer(store: LayerStore) -> None:
    """Broken: a layer that no image passed with is taken for proven."""
    put(store)
    found = find_stored([Layer(kind="wheels", key=KEY)], store, "")
    assert [each.proven for each in found.values()] == [False]
    store.prove([digest(CONTENT)])
    found = find_stored([Layer(kind="wheels", key=KEY)], store, "")
    assert [each.proven for each in found.values()] == [True]
    assert not store.is_proven(digest(b"another"))


def test_layer_of_a_branch_is_found_by_that_branch_alone(store: LayerStore) -> None:
    """Broken: on a runner that keeps its cache, a merge request makes layers of the default branch's images."""
    mine = put(store, content=b"of a merge request", branch="fix-1")
    assert store.find(KEY, "fix-1") == mine
    assert store.find(KEY, "") is None
    assert store.find(KEY, "fix") is None
    common = put(store)
    assert store.find(KEY, "") == common
    assert store.find(KEY, "other") == common
    assert store.find(KEY, "fix-1") == mine


def test_name_that_is_no_hash(store: LayerStore) -> None:
    """Broken: a lock with a path in place of a hash has files outside of the cache written, or read."""
    (store.folder.parent / "outside").write_text("5", encoding="utf-8")
    name = "../../outside"
    store.add_size(name, 7)
    store.add_tree(name, f"sha256:{'1' * 64}")
    assert (store.folder.parent / "outside").read_text(encoding="utf-8") == "5"
    assert (store.size_of(name), store.tree_of(name)) == (None, None)
