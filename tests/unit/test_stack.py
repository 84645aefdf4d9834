"""Trees of layers that were unpacked by themselves make up the same root file system as the layers in their order."""

from __future__ import annotations

import contextlib
import stat
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from builder.rootfs.stack import MisfitError, TreeNotes, copy_stack, unpack_tree
from builder.rootfs.unpack import UnpackError
from tests.layers import tar_of
from tests.unit.test_unpack import Entry, entry, folder, hard_link, link

BASE = [folder("opt"), folder("usr"), folder("usr/bin"), link("bin", "usr/bin"), entry("usr/bin/sh", content=b"sh")]


def trees_of(place: Path, layers: Sequence[Sequence[Entry]], *, alone: bool) -> list[Path]:
    """Unpack layers: each into a tree of its own, or all into one."""
    blobs = []
    for number, entries in enumerate(layers):
        blobs.append(place / f"layer-{alone}-{number}")
        blobs[-1].write_bytes(tar_of(*entries))
    trees = []
    for number, group in enumerate([[blob] for blob in blobs] if alone else [blobs]):
        trees.append(place / f"tree-{alone}-{number}")
        trees[-1].mkdir()
        unpack_tree(trees[-1], group, alone=alone and number > 0, owners=True)
    return trees


def listing(root: Path) -> dict[str, tuple[int, int, str]]:
    """The mode, the number of links, and the content or target of everything below a folder."""
    found = {}
    for path in sorted([root, *root.rglob("*")]):
        status = path.lstat()
        is_folder = stat.S_ISDIR(status.st_mode)
        content = str(path.readlink()) if path.is_symlink() else "" if is_folder else path.read_text()
        found[str(path.relative_to(root))] = (status.st_mode, 0 if is_folder else status.st_nlink, content)
    return found


def laid(place: Path, layers: Sequence[Sequence[Entry]]) -> tuple[Path, list[Path]]:
    """The layers as trees over each other, copied; and those trees."""
    trees, root = trees_of(place, layers, alone=True), place / "root"
    root.mkdir()
    copy_stack([tree for tree in trees if TreeNotes.of(tree).stands_alone], root)
    return root, trees


def test_shared_layers(tmp_path: Path) -> None:
    """Broken: where layers are not unpacked in their order, files, modes or hard links are other ones."""
    layers = [
        [*BASE, entry("opt", tarfile.DIRTYPE, mode=0o711), entry("etc/passwd", content=b"root")],
        [folder("opt/uv"), entry("opt/uv/a", content=b"1"), hard_link("opt/uv/b", "opt/uv/a"), link("kind", "opt")],
        [entry("opt/uv", tarfile.DIRTYPE, mode=0o777), entry("opt/uv/a", content=b"2"), folder("kind")],
        [entry("opt/uv/c", content=b"3"), entry("usr/bin/new", content=b"4", mode=0o4755)],
    ]
    root, trees = laid(tmp_path, layers)
    (merged,) = trees_of(tmp_path, layers, alone=False)
    assert listing(root) == listing(merged / "root")
    assert TreeNotes.of(trees[3]).implied == ("", "opt", "opt/uv", "usr", "usr/bin")
    assert stat.S_IMODE((root / "opt").stat().st_mode) == 0o711


@pytest.mark.parametrize(
    "entries",
    [
        [entry("usr/bin/.wh.sh")],
        [entry("opt/.wh..wh..opq")],
        [hard_link("opt/sh", "usr/bin/sh")],
        [link("lib", "usr"), entry("lib/x", content=b"x")],
        [entry("../out", content=b"x")],
    ],
)
def test_layer_that_does_not_stand_alone(tmp_path: Path, entries: list[Entry]) -> None:
    """Broken: a layer whose meaning depends on those below it is mounted over others."""
    tree = trees_of(tmp_path, [BASE, entries], alone=True)[1]
    assert not TreeNotes.of(tree).stands_alone
    assert not (tree / "root").exists()


def test_folder_over_a_link(tmp_path: Path) -> None:
    """Broken: a file in /bin hides all programs of a base whose /bin is a link."""
    with pytest.raises(MisfitError, match="/bin is a folder in one layer, and none in one below it"):
        laid(tmp_path, [BASE, [entry("bin/tool", content=b"x")]])


_PATHS = st.lists(st.sampled_from(["a", "b", "opt"]), min_size=1, max_size=3).map("/".join)
_MODES = st.sampled_from([0o700, 0o755, 0o1777])
_ENTRIES = st.lists(
    st.one_of(
        st.builds(lambda path, mode: entry(path, content=path.encode(), mode=mode), _PATHS, _MODES),
        st.builds(lambda path, mode: entry(path, tarfile.DIRTYPE, mode=mode), _PATHS, _MODES),
        st.builds(link, _PATHS, _PATHS),
        st.builds(hard_link, _PATHS, _PATHS),
    ),
    max_size=6,
)


@given(layers=st.lists(_ENTRIES, min_size=1, max_size=4))
@example(layers=[[link("a", "opt"), folder("opt")], [entry("a/b", content=b"x")]])
def test_any_layers(tmp_path_factory: pytest.TempPathFactory, layers: Sequence[list[Entry]]) -> None:
    """Broken: some combination of layers is something else when each was unpacked by itself."""
    place = tmp_path_factory.mktemp("place")
    with contextlib.suppress(UnpackError, MisfitError):
        root, trees = laid(place, layers)
        if all(TreeNotes.of(tree).stands_alone for tree in trees):
            (merged,) = trees_of(place, layers, alone=False)
            assert listing(root) == listing(merged / "root")
