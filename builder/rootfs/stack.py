"""Root file systems made of trees, the lowest first: each has the files of some layers of an image.

A tree is a folder with its files in `root`, and `notes.json`. The lowest has the layers of a base image, unpacked one
over the other. Each of the others has one layer that was unpacked by itself, so that images share it: it removes
nothing, and has no path through a link. Trees are mounted over each other, or else copied.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from builder.rootfs import kernel
from builder.rootfs.clone import clone_tree, copy_status
from builder.rootfs.tree import RootTree
from builder.rootfs.unpack import UnpackedLayer, UnpackError, unpack_blob

_NOTES: Final = "notes.json"


class MisfitError(Exception):
    """A tree has a folder where one below it has a link or a file: its layer has to be unpacked over that."""


@dataclass(frozen=True, kw_only=True)
class TreeNotes:
    """What is known of a tree: the bytes that it takes, and the folders that no entry of its layer describes, by path.

    Such a folder has the owner and the mode that it has in the trees below. A layer that does not stand alone has no
    files here: it has to be unpacked over those below it.
    """

    size: int
    implied: tuple[str, ...] = ()
    stands_alone: bool = True

    @classmethod
    def of(cls, tree: Path) -> TreeNotes:
        """Read them; raise OSError or ValueError if they are damaged."""
        table = json.loads((tree / _NOTES).read_text(encoding="utf-8"))
        return cls(size=int(table["size"]), implied=tuple(table["implied"]), stands_alone=bool(table["stands_alone"]))


def unpack_tree(tree: Path, layers: Sequence[Path], *, alone: bool, owners: bool) -> None:
    """Unpack layers one over the other into a new tree, or with `alone` a single one that may go over any others.

    Raises UnpackError, which names the layer, and OSError.
    """
    root = tree / "root"
    root.mkdir(0o755)
    notes = TreeNotes(size=0)
    if alone:
        notes = _unpack_alone(layers[0], root, owners=owners)
    else:
        notes = TreeNotes(size=sum(_unpack(layer, root, owners=owners).size for layer in layers))
    if not notes.stands_alone:
        with RootTree(tree) as opened:
            opened.remove((root.name,))
    (tree / _NOTES).write_text(json.dumps(asdict(notes)), encoding="utf-8")


def _unpack(layer: Path, root: Path, *, owners: bool) -> UnpackedLayer:
    try:
        with layer.open("rb") as blob:
            return unpack_blob(blob, root, owners=owners)
    except UnpackError as error:
        raise UnpackError(f"layer {layer.name[:12]}: {error}") from error


def _unpack_alone(layer: Path, root: Path, *, owners: bool) -> TreeNotes:
    try:
        found = _unpack(layer, root, owners=owners)
    except UnpackError:
        return TreeNotes(size=0, stands_alone=False)  # it may need what is below it; if not, that is told then
    implied = tuple(sorted("/".join(parts) for parts in found.implied))
    return TreeNotes(size=found.size, implied=implied, stands_alone=found.stands_alone)


def mount_stack(trees: Sequence[Path], target: Path) -> bool:
    """Mount trees at `root` in the target, where they can be changed; False if the file system cannot.

    Raises MisfitError.
    """
    described = _described(trees)
    upper, links = target / "upper", target / "trees"
    for folder in (upper, target / "work", links):
        folder.mkdir()
    for number, tree in enumerate(trees):
        (links / str(number)).symlink_to((tree / "root").absolute())  # a mount has room for 4,096 characters
    for path, place in sorted(described.items()):
        if path:
            (upper / path).mkdir()
        copy_status(place.stat(), str(place), str(upper / path))
    here = Path.cwd()
    os.chdir(target)
    try:
        kernel.mount_overlay([f"trees/{number}" for number in range(len(trees))], "upper", "work", "root")
    except OSError:
        return False
    finally:
        os.chdir(here)
    return True


def copy_stack(trees: Sequence[Path], root: Path) -> None:
    """Copy trees into an empty folder; raise MisfitError."""
    described = _described(trees)
    for tree in trees:
        clone_tree(tree / "root", root)
    for path, place in described.items():
        copy_status(place.stat(), str(place), str(root / path))


def _described(trees: Sequence[Path]) -> Mapping[str, Path]:
    """Where each folder is described that some tree only implies, and those that it is in; the top has no name."""
    implied = [frozenset(TreeNotes.of(tree).implied) if number else frozenset() for number, tree in enumerate(trees)]
    paths = {path[:length] for each in implied for path in each for length in _lengths(path)} | {""}
    found = {}
    for path in sorted(paths):
        for tree, own in zip(reversed(trees), reversed(implied), strict=True):
            status = None if path in own else _status(tree / "root", path)
            if status is None:
                continue
            if not stat.S_ISDIR(status.st_mode):
                raise MisfitError(f"/{path} is a folder in one layer, and none in one below it")
            found[path] = tree / "root" / path
            break
    return found


def _lengths(path: str) -> list[int]:
    """The lengths of the paths of a path's folders, and its own."""
    return [number for number, character in enumerate(path) if character == "/"] + [len(path)]


def _status(root: Path, path: str) -> os.stat_result | None:
    """The status of a path that no link leads to; None if it is not there."""
    place = root
    status = place.lstat()
    for part in path.split("/") if path else ():
        if not stat.S_ISDIR(status.st_mode):
            return None
        place /= part
        try:
            status = place.lstat()
        except FileNotFoundError:
            return None
    return status
