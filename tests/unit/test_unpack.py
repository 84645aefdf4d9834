"""Layers are unpacked into a folder: what they may do there, and that nothing outside is touched."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import stat
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import zstandard
from hypothesis import example, given
from hypothesis import strategies as st

from builder.rootfs.unpack import UnpackError, unpack_blob
from tests.layers import tar_of

Entry = tuple[tarfile.TarInfo, bytes]


def entry(name: str, kind: bytes = tarfile.REGTYPE, content: bytes = b"", **fields: object) -> Entry:
    """An entry of a tar, owned by whoever runs the tests."""
    info = tarfile.TarInfo(name)
    info.type, info.size, info.mode = kind, len(content), 0o755 if kind == tarfile.DIRTYPE else 0o644
    info.uid, info.gid, info.mtime = os.getuid(), os.getgid(), 1_000_000_000
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def folder(name: str) -> Entry:
    """A folder."""
    return entry(name, tarfile.DIRTYPE)


def link(name: str, target: str) -> Entry:
    """A symbolic link."""
    return entry(name, tarfile.SYMTYPE, linkname=target)


def hard_link(name: str, target: str) -> Entry:
    """A hard link."""
    return entry(name, tarfile.LNKTYPE, linkname=target)


class Place:
    """A root file system, with a file outside it that must stay as it is."""

    def __init__(self, top: Path) -> None:
        self.root = top / "root"
        self.outside = top / "outside"
        self.root.mkdir()
        self.outside.mkdir()
        (self.outside / "file").write_text("outside")

    def unpack(self, *entries: Entry) -> None:
        """Unpack one layer."""
        unpack_blob(io.BytesIO(tar_of(*entries)), self.root)

    def found(self) -> dict[str, str]:
        """What is in the root: the text of files, the targets of links, `/` for folders."""
        return {str(path.relative_to(self.root)): _content(path) for path in sorted(self.root.rglob("*"))}

    def check_outside(self) -> None:
        """Fail if anything outside was touched."""
        assert [path.name for path in self.outside.parent.iterdir() if path != self.root] == ["outside"]
        assert [path.name for path in self.outside.iterdir()] == ["file"]
        assert (self.outside / "file").read_text() == "outside"


def _content(path: Path) -> str:
    if path.is_symlink():
        return f"-> {path.readlink()}"
    return "/" if path.is_dir() else path.read_text()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """An empty root file system."""
    return Place(tmp_path)


REFUSED: dict[str, Callable[[str], list[Entry]]] = {
    "a path out of the folder": lambda _: [entry("../outside/file", content=b"x")],
    "a path out of a folder in it": lambda _: [folder("a"), entry("a/../../outside/new", content=b"x")],
    "a folder outside": lambda _: [folder("../new")],
    "a link from outside": lambda _: [link("../new", "root")],
    "a hard link to outside": lambda _: [hard_link("a", "../outside/file")],
    "a hard link to an absolute path": lambda outside: [hard_link("a", f"{outside}/file")],
    "a hard link through a link": lambda outside: [link("out", outside), hard_link("a", "out/file")],
    "a hard link to a folder": lambda _: [folder("a"), hard_link("b", "a")],
    "a whiteout of its folder": lambda _: [folder("a"), entry("a/.wh..")],
    "a whiteout of its folder's parent": lambda _: [folder("a"), entry("a/.wh...")],
    "a whiteout of the parent": lambda _: [entry(".wh...")],
    "a whiteout of nothing": lambda _: [entry(".wh.")],
    "a whiteout beside the folder": lambda _: [entry("../outside/.wh.file")],
    "an opaque folder outside": lambda _: [entry("../outside/.wh..wh..opq")],
    "links in a circle": lambda _: [link("a", "b"), link("b", "a"), entry("a/file", content=b"x")],
    "a file as a folder": lambda _: [entry("a", content=b"x"), entry("a/b", content=b"x")],
    "folders without an end": lambda _: [entry("a/" * 500 + "b", content=b"x")],
    "a time that is none": lambda _: [entry("a", mtime=1e300)],
    "a folder's time that is none": lambda _: [entry("a", tarfile.DIRTYPE, mtime=1e300)],
    "a folder's time that is no number": lambda _: [entry("a", tarfile.DIRTYPE, pax_headers={"mtime": "nan"})],
    "a link with a NUL": lambda _: [link("a", "b"), entry("c", tarfile.SYMTYPE, pax_headers={"linkpath": "d\0e"})],
    "a name with a NUL": lambda _: [entry("c", pax_headers={"path": "d\0e"})],
    "a name that is too long": lambda _: [entry("a" * 300)],
    "a link that is too long": lambda _: [link("a", "b/" * 3000)],
    "a hard link through a link to a folder outside": lambda outside: [
        link("out", outside),
        folder("in"),
        hard_link("in/a", "out/../outside/file"),
    ],
    "a folder that became a file": lambda _: [folder("a"), entry("a", content=b"x"), entry("a/b", content=b"x")],
    "an owner that is none": lambda _: [entry("a", pax_headers={"uid": str(1 << 70)})],
    "more than a disk has": lambda _: [
        entry("a", pax_headers={"GNU.sparse.size": str(1 << 60), "GNU.sparse.map": "0,0"})
    ],
}


@pytest.mark.parametrize("case", REFUSED)
def test_hostile_layer_is_refused(place: Place, case: str) -> None:
    """Broken: a layer writes or removes files of this machine, or breaks builder with a traceback."""
    with pytest.raises(UnpackError, match="entry '"):
        place.unpack(*REFUSED[case](str(place.outside)))
    place.check_outside()


CONFINED: dict[str, tuple[Callable[[str], list[Entry]], set[str]]] = {
    "an absolute path": (lambda _: [entry("/etc/file", content=b"x")], {"etc", "etc/file"}),
    "a file through a link up": (
        lambda _: [link("out", "../outside"), entry("out/file", content=b"x")],
        {"out", "outside", "outside/file"},
    ),
    "a file over a link": (lambda outside: [link("a", f"{outside}/file"), entry("a", content=b"x")], {"a"}),
    "a folder over a link": (
        lambda outside: [link("a", outside), folder("a"), entry("a/file", content=b"x")],
        {"a", "a/file"},
    ),
    "a link through many": (
        lambda _: [folder("d"), link("d/up", "../../.."), link("up", "d/up/d/up"), entry("up/file", content=b"x")],
        {"d", "d/up", "up", "file"},
    ),
    "devices": (
        lambda _: [
            entry("null", tarfile.CHRTYPE, devmajor=1, devminor=3),
            entry("disk", tarfile.BLKTYPE, devmajor=254, devminor=0),
            entry("pipe", tarfile.FIFOTYPE),
        ],
        set(),
    ),
    "a whiteout through a link": (lambda outside: [link("out", outside), entry("out/.wh.file")], {"out"}),
    "an opaque folder through a link": (lambda outside: [link("out", outside), entry("out/.wh..wh..opq")], {"out"}),
    "a whiteout of a link": (lambda _: [entry(".wh.out")], set()),
    "another program's whiteouts": (lambda _: [entry(".wh..wh.plnk"), entry(".wh..wh.aufs")], set()),
}


@pytest.mark.parametrize("case", CONFINED)
def test_layer_stays_in_its_folder(place: Place, case: str) -> None:
    """Broken: a path, a link or a whiteout of a layer reaches files of this machine."""
    entries, names = CONFINED[case]
    place.unpack(*entries(str(place.outside)))
    place.check_outside()
    inner = {name for name in place.found() if not name.startswith(str(place.outside).lstrip("/").split("/")[0])}
    assert inner == names


def test_whiteouts_remove_what_is_below(place: Place) -> None:
    """Broken: a file that a layer of the base removes is in the image."""
    place.unpack(folder("a"), entry("a/old", content=b"1"), folder("a/in"), entry("a/in/old", content=b"1"),
                 entry("kept", content=b"1"), link("link", "kept"))  # fmt: skip
    place.unpack(entry("a/.wh.in"), entry(".wh.link"), entry(".wh.missing"), entry("missing/.wh.too"))
    assert place.found() == {"a": "/", "a/old": "1", "kept": "1"}


@pytest.mark.parametrize("is_first", [True, False])
def test_whiteouts_spare_their_own_layer(place: Place, is_first: bool) -> None:
    """Broken: a layer that replaces a folder loses the new files, by the order of its entries."""
    place.unpack(folder("a"), entry("a/old", content=b"1"), folder("a/in"), entry("a/in/old", content=b"1"))
    new = [folder("a"), entry("a/new", content=b"2"), folder("a/in"), entry("a/in/new", content=b"2")]
    whiteouts = [entry("a/.wh..wh..opq"), entry("a/in/.wh.new")]
    place.unpack(*([*new[:1], *whiteouts, *new[1:]] if is_first else [*new, *whiteouts]))
    assert place.found() == {"a": "/", "a/new": "2", "a/in": "/", "a/in/new": "2"}


def test_kinds_replace_each_other(place: Place) -> None:
    """Broken: a layer that has a link where the one below has a folder, or the like, is not what engines show."""
    place.unpack(folder("a"), entry("a/x", content=b"1"), entry("b", content=b"1"), link("c", "b"), folder("d"),
                 entry("d/stays", content=b"1"))  # fmt: skip
    place.unpack(link("a", "d"), folder("b"), entry("c", content=b"2"), folder("d"))
    assert place.found() == {"a": "-> d", "b": "/", "c": "2", "d": "/", "d/stays": "1"}


def test_folder_that_becomes_another(place: Place) -> None:
    """Broken: files go to a folder that a later entry has replaced, or to where a link led before."""
    place.unpack(
        folder("a"), folder("b"), entry("a/x", content=b"1"), link("a", "b"), entry("a/y", content=b"2"),
        folder("c"), link("l", "b"), entry("l/z", content=b"3"), link("l", "c"), entry("l/w", content=b"4"),
        entry("d/v", content=b"5"), link("d", "c"), folder("d"), entry("d/u", content=b"6"),
    )  # fmt: skip
    assert place.found() == {
        "a": "-> b", "b": "/", "b/y": "2", "b/z": "3", "c": "/", "c/w": "4", "d": "/", "d/u": "6", "l": "-> c",
    }  # fmt: skip


def test_attributes(place: Place) -> None:
    """Broken: an image's files have other modes, times or links when they are unpacked."""
    place.unpack(
        entry("file", content=b"1", mode=0o4711, mtime=1_234_567_890),
        hard_link("same", "file"),
        entry("folder", tarfile.DIRTYPE, mode=0o1777, mtime=1_111_111_111),
        entry("folder/file", content=b"2"),
        entry("marked", content=b"3", pax_headers={"SCHILY.xattr.user.mark": "yes"}),
    )
    status = (place.root / "file").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_mtime, status.st_nlink) == (0o4711, 1_234_567_890, 2)
    assert (place.root / "same").stat().st_ino == status.st_ino
    status = (place.root / "folder").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_mtime) == (0o1777, 1_111_111_111)
    assert os.getxattr(place.root / "marked", "user.mark") == b"yes"


def test_files_of_this_user(place: Place) -> None:
    """Broken: an ordinary user cannot unpack what root alone may write to, or cannot remove it."""
    closed = [
        entry("closed", tarfile.DIRTYPE, mode=0o555),
        entry("closed/file", content=b"1", mode=0o000, uid=7, gid=7),
    ]
    unpack_blob(io.BytesIO(tar_of(*closed)), place.root, owners=False)
    for name in ("closed", "closed/file"):
        status = (place.root / name).stat()
        assert (status.st_uid, status.st_mode & 0o700) == (os.getuid(), 0o700)


@pytest.mark.parametrize("packed", [bytes, gzip.compress, zstandard.compress])
def test_compressions(place: Place, packed: Callable[[bytes], bytes]) -> None:
    """Broken: layers with one of the compressions of the specification cannot be unpacked."""
    unpack_blob(io.BytesIO(packed(tar_of(entry("file", content=b"1")))), place.root)
    assert place.found() == {"file": "1"}


@pytest.mark.parametrize("packed", [bytes, gzip.compress, zstandard.compress])
@pytest.mark.parametrize("cut", [3, 700])
def test_cut_layer(place: Place, packed: Callable[[bytes], bytes], cut: int) -> None:
    """Broken: a layer that ends early is taken for a whole one."""
    blob = packed(tar_of(entry("file", content=os.urandom(5000))))
    with pytest.raises(UnpackError):
        unpack_blob(io.BytesIO(blob[:cut]), place.root)


def _pax(text: bytes) -> bytes:
    """A header with further fields of the next entry."""
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XHDTYPE, len(text)
    return header.tobuf(tarfile.USTAR_FORMAT) + text.ljust(512, b"\0")


def _endless_name() -> bytes:
    """A header that says that a name of a terabyte follows."""
    header = tarfile.TarInfo("name")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 1 << 40
    return header.tobuf(tarfile.GNU_FORMAT)


MALFORMED: dict[str, Callable[[], bytes]] = {
    "no tar": lambda: b"no tar at all " * 100,
    "a short text": lambda: b"no",
    "a page": lambda: b"<html>".ljust(2048),
    "damage in the middle": lambda: tar_of(entry("a"))[:512] + b"damage".ljust(1024, b"x"),
    "half a header": lambda: tar_of(entry("a"))[:700],
    "a name without an end": _endless_name,
    "headers of headers": lambda: _pax(b"13 comment=a\n") * 5000,
    "a header that is no record": lambda: _pax(b"x" * 100),
    "a sparse file without a map": lambda: tar_of(entry("a", pax_headers={"GNU.sparse.map": ""})),
}


@pytest.mark.parametrize("packed", [bytes, gzip.compress])
@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_layer(place: Place, case: str, packed: Callable[[bytes], bytes]) -> None:
    """Broken: a layer that is no whole tar is taken for one, fills the memory, or ends in a traceback."""
    with pytest.raises(UnpackError, match="it is not a valid tar: "):
        unpack_blob(io.BytesIO(packed(MALFORMED[case]())), place.root)


_PARTS = st.sampled_from(["a", "b", "..", ".", "", "out", "up", ".wh.a", ".wh..", ".wh..wh..opq", "file", "outside"])
_NAMES = st.lists(_PARTS, min_size=1, max_size=5).map("/".join)
_TARGETS = st.one_of(_NAMES, st.sampled_from(["../outside", "/", "..", "../../..", "outside/file"]))
_ENTRIES = st.lists(
    st.one_of(
        st.builds(entry, _NAMES, st.just(tarfile.REGTYPE), st.just(b"x")),
        st.builds(folder, _NAMES),
        st.builds(link, _NAMES, _TARGETS),
        st.builds(hard_link, _NAMES, _TARGETS),
    ),
    max_size=8,
)


@given(layers=st.lists(_ENTRIES, max_size=3))
@example(layers=[[link("a", "")]])
def test_nothing_outside_is_touched(tmp_path_factory: pytest.TempPathFactory, layers: Iterable[list[Entry]]) -> None:
    """Broken: some combination of links, paths and whiteouts leads out of the folder."""
    place = Place(tmp_path_factory.mktemp("place"))
    for entries in layers:
        with contextlib.suppress(UnpackError):
            place.unpack(*entries)
        place.check_outside()
