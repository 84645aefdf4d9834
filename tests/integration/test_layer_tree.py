"""An image of layers has the same files as one that plain `docker build` makes of the rendered Dockerfile."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import docker
from tests.integration.shelf import Project, Shelf, open_shelf

pytestmark = pytest.mark.integration

# Prints every file below /: kind, mode, owner, links, and a hash of its content. Bytecode is compared as what it means,
# because the order of a frozenset's members in it is random.
WALK = r"""
import hashlib, json, marshal, os, re, stat, types
OUTSIDE = {"/proc", "/sys", "/dev", "/run", "/tmp", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/.dockerenv"}

def meaning(value):
    if isinstance(value, types.CodeType):
        names = [name for name in dir(value) if name.startswith("co_") and name not in ("co_lines", "co_positions")]
        return [[name, meaning(getattr(value, name))] for name in names if not callable(getattr(value, name))]
    if isinstance(value, frozenset):
        return ["frozenset", sorted(map(repr, value))]
    return [meaning(each) for each in value] if isinstance(value, tuple) else repr(value)

def content(path):
    with open(path, "rb") as file:
        data = file.read()
    if path.endswith(".pyc"):
        told = repr(meaning(marshal.loads(data[16:])))
        if path.startswith("/opt/uv/cache/sdists-"):
            told = re.sub("/opt/uv/cache/[^']*/src/", "", told)  # it was compiled where uv unpacked it, a random name
        data = data[:8] + data[12:16] + told.encode()
    return data

found, inodes, todo = {}, {}, ["/"]
while todo:
    folder = todo.pop()
    for entry in os.scandir(folder):
        if entry.path in OUTSIDE:
            continue
        status = os.lstat(entry.path)
        what = {"mode": oct(status.st_mode), "owner": [status.st_uid, status.st_gid]}
        if stat.S_ISDIR(status.st_mode):
            todo.append(entry.path)
        elif stat.S_ISLNK(status.st_mode):
            what["link"] = os.readlink(entry.path)
        elif stat.S_ISREG(status.st_mode):
            data = content(entry.path)
            what["hash"] = hashlib.sha256(data).hexdigest()
            if entry.path.startswith("/opt/uv/") and len(data) < 4000:
                what["text"] = data.decode("latin-1")
            if status.st_nlink > 1:
                inodes.setdefault(status.st_ino, []).append(entry.path)
        found[entry.path] = what
print(json.dumps([found, list(inodes.values())]))
"""
Tree = dict[str, dict[str, Any]]
MADE = ("/opt/uv/", "/usr/local/")  # where everything is but system packages, which take running the base
SYSTEM = 'packages = ["tini"]\n'  # of the base, the matrix's last table


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:
    """The packages."""
    with open_shelf(tmp_path_factory.mktemp("shelf")) as opened:
        yield opened


def wheels(shelf: Shelf) -> list[dict[str, Any]]:
    """What is installed without being built."""
    return [package for package in everything(shelf) if "wheels" in package]


def everything(shelf: Shelf) -> list[dict[str, Any]]:
    """One package for each thing that packages do; those of a clash write the same bytes."""
    main = b"def main():\n    return {'a', 'b'} >= {'a'} and 'c' in {'x', 'y', 'z'}\n"
    return [
        shelf.wheel("plain"),
        shelf.wheel("space-one", files={"space/one/__init__.py": b"x = 1\n"}),
        shelf.wheel("space-two", files={"space/two/__init__.py": b"x = 2\n", "space/shared.txt": b"same"}),
        shelf.wheel("space-three", files={"space/three.py": b"x = 3\n", "space/shared.txt": b"same"}),
        shelf.wheel("pth", files={"pth_hook.py": b"", "pth.pth": b"import pth_hook\n"}),
        shelf.wheel("tool", files={"tool.py": main}, scripts={"tool": "tool:main"}),
        shelf.wheel("other-tool", files={"tool.py": main}, scripts={"tool": "tool:main"}),
        shelf.wheel("data", files={"data.py": b"", "data-1.0.data/data/share/data/file.txt": b"data",
                                   "data-1.0.data/scripts/data.sh": b"#!/bin/sh\necho data\n",
                                   "data-1.0.data/scripts/data.py": b"#!python\nprint(1)\n"}),
        shelf.wheel("hollow", files={"hollow/__init__.py": b""}, folders=("hollow/empty", "hollow_top")),
        shelf.wheel("broken", files={"broken/__init__.py": b"", "broken/template.py": b"{{ no Python }}\n"}),
        shelf.wheel("compiled", files={"compiled.py": main, "__pycache__/compiled.cpython-313.pyc": bytes(16) + b"N"}),
        shelf.wheel("large", size=700_000),
        shelf.sdist("sourced"),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def trees(shelf: Shelf, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Tree, Tree]]:
    """The files of the layered image, and of the one that `docker build` makes."""
    folder = tmp_path_factory.mktemp("tree")
    project = Project(folder=folder, repository="layer-tree.example/ci", env={})
    one_cell(project, SYSTEM)
    project.packages(*everything(shelf))
    done = project.builder("build", "--no-verify", "--json")
    assert done.returncode == 0, done.stderr
    (cell,) = json.loads(done.stdout)["cells"]
    done = project.builder("render", "-o", "rendered")
    assert done.returncode == 0, done.stderr
    plain = "layer-tree.example/plain:1"
    context = folder / "rendered" / cell["name"]
    argv = ["docker", "build", "--quiet", "--no-cache", "--tag", plain, *contexts(context / "Dockerfile"), str(context)]
    subprocess.run(argv, check=True, capture_output=True)
    try:
        yield tree_of(cell["tags"][0]), tree_of(plain)
    finally:
        docker("image", "rm", "--force", plain, *cell["tags"])


@pytest.fixture(scope="module")
def native(shelf: Shelf, trees: tuple[Tree, Tree], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tree]:
    """The files of the image whose layers were made without an engine."""
    with made_by("native", everything(shelf), tmp_path_factory.mktemp("native"), SYSTEM) as tree:
        yield tree


@pytest.fixture(scope="module")
def crossed(shelf: Shelf, trees: tuple[Tree, Tree], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tree]:
    """The files of the image whose layers were made without running anything of the base."""
    with made_by("cross", wheels(shelf), tmp_path_factory.mktemp("cross")) as tree:
        yield tree


@contextlib.contextmanager
def made_by(maker: str, packages: list[dict[str, Any]], folder: Path, system: str = "") -> Iterator[Tree]:
    """Build an image with layers of this maker alone; yield its files."""
    project = Project(folder=folder, repository=f"layer-tree.example/{maker}", env=own_environment(folder))
    one_cell(project, system)
    project.packages(*packages)
    done = project.builder("build", "--no-verify", "--json", "--maker", maker)
    assert done.returncode == 0, done.stderr
    (cell,) = json.loads(done.stdout)["cells"]
    try:
        yield tree_of(cell["tags"][0])
    finally:
        docker("image", "rm", "--force", *cell["tags"])


def one_cell(project: Project, system: str) -> None:
    """Write a matrix with one cell, whose base has these settings too."""
    project.one_cell()
    path = project.folder / "matrix.toml"
    path.write_text(path.read_text() + system)


def own_environment(folder: Path) -> dict[str, str]:
    """A cache of one's own; and the Python that stands in for the image's, where pyenv hides it."""
    pythons = sorted(Path.home().glob(".pyenv/versions/3.13.*/bin"))
    path = os.pathsep.join([*map(str, pythons), os.environ["PATH"]])
    return {"BUILDER_CACHE_DIR": str(folder / "cache"), "PATH": path}


def contexts(dockerfile: Path) -> list[str]:
    """Options by which plain `docker build` uses the mirrors that builder is given."""
    mirrors = dict(pair.split("=", 1) for pair in os.environ.get("BUILDER_MIRRORS", "").split(",") if pair)
    options = []
    for name in re.findall(r"(?:^FROM |--from=)(\S+@sha256:\w+)", dockerfile.read_text(), re.MULTILINE):
        host, _, rest = name.partition("/")
        if host in mirrors:
            path, _, digest = rest.partition("@")
            located = f"{mirrors[host]}/{path.rpartition(':')[0]}@{digest}"
            options += ["--build-context", f"{name}=docker-image://{located}"]
    return options


def tree_of(image: str) -> Tree:
    """The image's files by path, with uv's random ids replaced by what they stand for."""
    found, groups = json.loads(docker("run", "--rm", "--network", "none", image, "python3", "-I", "-B", "-c", WALK))
    for group in groups:
        for path in group:
            found[path]["same file"] = sorted(group)
    ids = dict(sorted((each, name) for path in found for each, name in archive_ids(path)))
    text = json.dumps(found)
    for number, (each, name) in enumerate(ids.items()):
        text = text.replace(each, f"<{name}>")
        assert number < 100
    tree: Tree = json.loads(text)
    for what in tree.values():
        if "same file" in what:
            what["same file"] = sorted(what["same file"])
    return tree


def archive_ids(path: str) -> Iterator[tuple[str, str]]:
    """The random id of an archive in uv's cache, with its package; and that of what was built from source."""
    if found := re.fullmatch(r"/opt/uv/cache/archive-v\d+/([^/]+)/([^/]+)\.dist-info", path):
        yield found[1], found[2]
    if found := re.fullmatch(r"/opt/uv/cache/sdists-v\d+/.*/([\w-]{16,})/([^/]+)\.whl", path):
        yield found[1], found[2]


def differences(trees: tuple[Tree, Tree]) -> list[str]:
    """Each path that differs, with what it is in the two images."""
    layered, plain = trees
    return [f"{path}: {layered.get(path)} | {plain.get(path)}" for path in sorted({*layered, *plain})
            if stable(path, layered.get(path)) != stable(path, plain.get(path))]  # fmt: skip


def stable(path: str, what: dict[str, Any] | None) -> dict[str, Any] | None:
    """What a file is, without what differs in any two builds."""
    timed = path.startswith("/opt/uv/cache/") and path.endswith((".http", ".rev", ".msgpack"))
    # uv notes when the file of the base's own pip came to this machine.
    timed = timed or re.search(r"/pip-[^/]+\.dist-info/(uv_cache\.json|RECORD)$", path) is not None
    # Package managers write down what they did when.
    timed = timed or path.startswith(("/var/log/", "/var/cache/"))
    # Of packages that write the same file, uv installs several at a time: it links the one that came first or last.
    clash = path.endswith(("/space/shared.txt", "/tool.py"))
    left_out = {*({"text", "hash"} if timed else ()), *({"same file"} if clash else ())}
    return {name: value for name, value in what.items() if name not in left_out} if what else None


def test_same_tree(trees: tuple[Tree, Tree]) -> None:
    """Broken: an image of layers lacks a file, has one too many, or one with other bytes, mode, owner or links."""
    assert "\n".join(differences(trees)) == ""


def test_same_tree_without_an_engine(trees: tuple[Tree, Tree], native: Tree) -> None:
    """Broken: a layer that is made without an engine has other files than BuildKit's, or traces of this machine."""
    assert "\n".join(differences((native, trees[0]))) == ""


def test_same_tree_without_running_the_base(trees: tuple[Tree, Tree], crossed: Tree) -> None:
    """Broken: what is installed without running the base image has other files, or names folders of this machine."""
    # What is of the other image's sdist, of its lock, or named by a hash of where pip's wheel was.
    parts = (
        "sourced",
        "/sdists-v",
        "/builds-v",
        "/interpreter-v",
        r"/wheels-v\d+/index/\w+",
        "/pylock.toml$",
        "status$",
    )
    left_out = re.compile("|".join(parts))
    both = [
        {path: what for path, what in tree.items() if path.startswith(MADE) and not left_out.search(path)}
        for tree in (crossed, trees[0])
    ]
    assert "\n".join(differences((both[0], both[1]))) == ""


def test_tree_has_what_it_is_compared_for(trees: tuple[Tree, Tree]) -> None:
    """Broken: the comparison above compares nothing."""
    layered, _ = trees
    site = "/opt/uv/venv/lib/python3.13/site-packages"
    for path in ("space/one/__init__.py", "pth.pth", "hollow/empty", "hollow_top", "sourced.py", "large_data.bin"):
        assert f"{site}/{path}" in layered, path
    for path in ("bin/tool", "bin/data.sh", "share/data/file.txt"):
        assert f"/opt/uv/venv/{path}" in layered, path
    assert "/usr/bin/tini" in layered
    assert len(layered[f"{site}/large_data.bin"]["same file"]) == 2
    assert layered[f"{site}/hollow"]["mode"] == "0o40777"
