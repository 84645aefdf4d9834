"""What can be told of an image without running it: for one that is made for machines of another architecture."""

from __future__ import annotations

import posixpath
import re
import tarfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, Final

from builder.contract import LAYER_KEY, VENV
from builder.layer.assemble import AssembledImage
from builder.oci.compression import DAMAGED, compression_of, unpacked
from builder.oci.manifest import ImageConfig
from builder.oci.reference import Digest
from builder.parse import parse_document
from builder.verify.inside import Check
from builder.verify.script import INSIDE

ARCHITECTURE: Final = "architecture"
_MACHINES: Final[Mapping[str, int]] = {"amd64": 62, "arm64": 183}  # e_machine in elf(5)
_MAGICS: Final[Mapping[int, int]] = {  # of bytecode, by Python's minor version (CPython's pycore_magic_number.h)
    9: 3425, 10: 3439, 11: 3495, 12: 3531, 13: 3571, 14: 3627,
}  # fmt: skip
_MODULE: Final = re.compile(r"\.(cpython-\d+[^.]*|abi3)\.so$")  # other machine code may be data, also of other machines
_HEADER: Final = 64  # bytes of a file that tell what it is
_LINE: Final = 512  # bytes of a script's first line
_BIN: Final = f"{VENV}/bin/".lstrip("/")
_CFG: Final = f"{VENV}/pyvenv.cfg".lstrip("/")
_CACHED: Final = re.compile(r"(?P<folder>.*/)__pycache__/(?P<stem>[^/]+)\.cpython-\d+\.pyc")


@dataclass(kw_only=True)
class _Files:
    """The files of an image's own layers, by path without a leading slash."""

    names: set[str] = field(default_factory=set)
    links: dict[str, str] = field(default_factory=dict)  # symbolic ones
    sources: dict[str, tuple[int, int]] = field(default_factory=dict)  # time and size
    bytecode: dict[str, bytes] = field(default_factory=dict)  # headers
    machines: dict[str, int] = field(default_factory=dict)
    scripts: dict[str, bytes] = field(default_factory=dict)  # first lines
    settings: bytes = b""  # pyvenv.cfg
    faults: list[str] = field(default_factory=list)


def check_architecture(image: AssembledImage) -> tuple[Check, ...]:
    """Check machine code, links, scripts and bytecode; the checks that would have to run the image are skipped."""
    started = time.monotonic()
    files = _Files()
    platform = image.rendered.plan.cell.platform
    for layer in image.manifest.body.layers:
        if LAYER_KEY in (layer.annotations or {}):
            _read_layer(image, Digest.from_str(layer.digest), files)
    version = parse_document(ImageConfig, image.config_bytes).environment.get("PYTHON_VERSION", "")
    minor = ".".join((version or image.rendered.plan.cell.python).split(".")[:2])
    faults = [
        *files.faults,
        *_machine_faults(files, _MACHINES[platform.architecture]),
        *_path_faults(files, version),
        *_bytecode_faults(files, _MAGICS.get(int(minor.split(".")[1]))),
    ]
    evidence = (
        f"{len(files.names)} files: {len(files.machines)} modules and programs for {platform.machine}, "
        f"{len(files.scripts)} scripts, {len(files.bytecode)} files of bytecode for {minor}; not run"
    )
    own = Check(
        name=ARCHITECTURE, verdict="failed" if faults else "passed", evidence="; ".join(faults[:5]) or evidence,
        seconds=round(time.monotonic() - started, 3),
    )  # fmt: skip
    reason = f"this machine runs no programs for {platform}"
    return (own, *(Check(name=name, verdict="skipped", evidence=reason, seconds=0.0) for name in INSIDE))


def _read_layer(image: AssembledImage, digest: Digest, files: _Files) -> None:
    try:
        with image.open_blob(digest) as blob:
            kind = compression_of(blob.read(4))
            blob.seek(0)
            with unpacked(blob, kind) as plain, tarfile.open(fileobj=plain, mode="r|") as tar:
                _read_entries(tar, files)
    except DAMAGED as error:
        files.faults.append(f"layer {digest} is damaged: {error}")


def _read_entries(tar: tarfile.TarFile, files: _Files) -> None:
    here: dict[str, tuple[bytes, int]] = {}  # the first bytes and the size of this layer's files
    for entry in tar:
        name = entry.name
        files.names.add(name)
        if entry.issym():
            files.links[name] = entry.linkname
        elif entry.islnk():
            if entry.linkname not in here:
                files.faults.append(f"/{name} is a link to /{entry.linkname}, which its layer does not have")
                continue
            here[name] = here[entry.linkname]
            _note(name, *here[name], int(entry.mtime), files)
        elif entry.isreg() and (content := tar.extractfile(entry)):
            here[name] = (_start(content, name), entry.size)
            _note(name, *here[name], int(entry.mtime), files)


def _start(content: IO[bytes], name: str) -> bytes:
    start = content.read(_HEADER)
    if start.startswith(b"#!") or name == _CFG:
        start += content.read(_LINE)
    return start


def _note(name: str, start: bytes, size: int, time_: int, files: _Files) -> None:
    """Note what a file is by its first bytes."""
    if name.endswith(".py"):
        files.sources[name] = time_, size
    elif name.endswith(".pyc"):
        files.bytecode[name] = start[:16]
    elif name == _CFG:
        files.settings = start
    if start.startswith(b"\x7fELF") and (_MODULE.search(name) or name.startswith(("usr/local/bin/", _BIN))):
        files.machines[name] = int.from_bytes(start[18:20], "little" if start[5] == 1 else "big")
    if name.startswith(_BIN) and start.startswith(b"#!"):
        files.scripts[name] = start.splitlines()[0]


def _machine_faults(files: _Files, expected: int) -> Iterator[str]:
    for name, machine in files.machines.items():
        if machine != expected:
            yield f"/{name} is for another architecture (e_machine {machine}, not {expected})"


def _path_faults(files: _Files, version: str) -> Iterator[str]:
    """Scripts run the environment's interpreter, links lead to files of the image, pyvenv.cfg names its Python."""
    for name, line in files.scripts.items():
        if b"python" in line and not line.startswith((f"#!{VENV}/bin/python".encode(), b"#!/usr/bin/env python")):
            yield f"/{name} begins with {line.decode(errors='replace')}"
    for name, target in files.links.items():
        if name.startswith("opt/uv/"):
            path = posixpath.normpath(posixpath.join("/", posixpath.dirname(name), target)).lstrip("/")
            is_inside = path.startswith("opt/uv/")
            if not (path in files.names if is_inside else name.startswith(f"{_BIN}python")):
                yield f"/{name} is a link to {target}, which the image does not have"
    pairs = (line.partition("=") for line in files.settings.decode(errors="replace").splitlines())
    settings = {name.strip(): value.strip() for name, _, value in pairs}
    if not settings.get("home", "").startswith("/") or settings["home"].startswith("/opt/uv"):
        yield f"pyvenv.cfg says home = {settings.get('home', '')}"
    if version and settings.get("version_info") not in {None, version}:
        yield f"pyvenv.cfg is for Python {settings['version_info']}, not {version}"


def _bytecode_faults(files: _Files, magic: int | None) -> Iterator[str]:
    """Bytecode has its interpreter's magic number, and the time and size of its source (PEP 3147, PEP 552)."""
    for name, header in files.bytecode.items():
        found = int.from_bytes(header[:2], "little")
        if magic is not None and found != magic:
            yield f"/{name} is bytecode of another Python (magic number {found}, not {magic})"
        match = _CACHED.fullmatch(name)
        source = files.sources.get(f"{match['folder']}{match['stem']}.py") if match else None
        noted = int.from_bytes(header[8:12], "little"), int.from_bytes(header[12:16], "little")
        if source and header[4:5] == b"\0" and noted != (source[0] & 0xFFFFFFFF, source[1]):
            yield f"/{name} is older than its source"
