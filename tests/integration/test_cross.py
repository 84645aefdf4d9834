"""Images for another architecture: made of wheels, without running anything of the base image."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import pytest
from uv import find_uv_bin

from builder.layer.base import fetch_image
from builder.layer.blobs import Blobs, BlobSource
from builder.layer.store import LayerStore
from builder.matrix.model import Platform
from builder.oci.compression import compression_of, unpacked
from builder.oci.manifest import Manifest, descriptor, digest_of, encode_json
from builder.oci.reference import Digest, ImageRef, Mirrors
from builder.oci.registry import Registries
from tests.integration.conftest import docker, images_of, own_name
from tests.integration.emulation import NoEmulationError, emulated_python
from tests.integration.nightly import INDEX
from tests.integration.registries import Registry, an_open_registry
from tests.integration.shelf import Project, open_shelf
from tests.integration.test_layer_tree import own_environment
from tests.layers import file, tar_of
from tests.shared import Shared

pytestmark = pytest.mark.integration

__all__ = ["an_open_registry"]

OTHER = "arm64" if Platform.of_this_machine().architecture == "amd64" else "amd64"
MACHINES = {"arm64": 183, "amd64": 62}  # e_machine of elf(5)
MAGIC = (3571).to_bytes(2, "little") + b"\r\n"  # of bytecode of CPython 3.13
PYPROJECT = """\
[project]
name = "crossed"
version = "1"
requires-python = ">=3.11"
dependencies = ["charset-normalizer==3.4.0"]

[tool.uv]
package = false
"""


@pytest.fixture(scope="module")
def names(open_registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Images of Python and uv that have the other architecture too, with the files of this: nothing of it is run."""
    store = LayerStore(folder=tmp_path_factory.mktemp("store"))
    uv = tar_of(*(file(name, machine_code(OTHER), 0o755) for name in ("uv", "uvx")))
    for name, other in {"docker.io/library/python:3.13-slim-bookworm": None, "ghcr.io/astral-sh/uv:0.13.8": uv}.items():
        put_for_both(ImageRef.from_str(name), open_registry.ref(f"crossed/{name.rpartition('/')[2]}"), store, other)
    place = f"{open_registry.host}/crossed"
    return f"{place}/python:{{python}}-slim-bookworm", f"{place}/uv"


def machine_code(architecture: str) -> bytes:
    """The header of a program for an architecture (elf(5)), and nothing that could be run."""
    return b"\x7fELF\x02\x01\x01".ljust(18, b"\0") + MACHINES[architecture].to_bytes(2, "little") + bytes(44)


def put_for_both(
    source: ImageRef, target: ImageRef, store: LayerStore, other: bytes | None, *, above: bytes | None = None
) -> None:
    """Put an image for this architecture under a tag, and for the other one the same, or a layer that is this tar.

    The other one has the layer `above` over what else is in it.
    """
    registries = Registries(Mirrors.from_strs([os.environ.get("BUILDER_MIRRORS", "")]))
    image = fetch_image(source.with_digest(registries.resolve(source)), Platform.of_this_machine(), registries, store)
    origins = {layer.digest: BlobSource(repository=image.ref, size=layer.size) for layer in image.layers}
    blobs = Blobs(store=store, registries=registries, origins=origins)
    for layer in image.layers:
        digest = Digest.from_str(layer.digest)
        registries.put_blob(target, digest, partial(blobs.open, digest))
    entries = []
    for architecture in MACHINES:
        table, layers = dict(image.manifest.table), {}
        if architecture == OTHER and other:
            registries.put_blob(target, digest_of(other), partial(io.BytesIO, other))
            table["layers"] = [{"mediaType": "application/vnd.oci.image.layer.v1.tar", **descriptor(other)}]
            layers = {"rootfs": {"type": "layers", "diff_ids": [str(digest_of(other))]}, "history": []}
        if architecture == OTHER and above:
            registries.put_blob(target, digest_of(above), partial(io.BytesIO, above))
            plain = {"mediaType": "application/vnd.oci.image.layer.v1.tar", **descriptor(above)}
            table["layers"] = [*table["layers"], plain]
            layers = {"rootfs": {"type": "layers", "diff_ids": [*image.diff_ids, str(digest_of(above))]}, "history": []}
        config = encode_json({**image.config, "architecture": architecture, **layers})
        registries.put_blob(target, digest_of(config), partial(io.BytesIO, config))
        manifest = Manifest.of({**table, "config": {**table["config"], **descriptor(config)}})
        registries.put_manifest(target.with_digest(manifest.digest).without_tag(), manifest)
        platform = {"os": "linux", "architecture": architecture}
        entries.append({"mediaType": manifest.media_type, **descriptor(manifest.content), "platform": platform})
    registries.put_manifest(target, Manifest.of({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}))


@pytest.fixture
def project(names: tuple[str, str], tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Project]:
    """A project whose image is for the other architecture; it has a wheel with machine code and a program."""
    folder = tmp_path / "project"
    folder.mkdir()
    made = Project(folder=folder, repository=f"crossed.example/{own_name(request)}", env=own_environment(tmp_path))
    base, uv = names
    made.one_cell(base=base, extra=f'uv-image = "{uv}"\n')
    (folder / "pyproject.toml").write_text(PYPROJECT)
    subprocess.run([find_uv_bin(), "lock", "--quiet"], cwd=folder, check=True)
    yield made
    for tag in images_of(made.repository):
        docker("image", "rm", "--force", f"{made.repository}:{tag}")


def build(project: Project, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Build for the other architecture."""
    options = ("--no-verify", "--json", "--maker", "cross", "--platform", f"linux/{OTHER}")
    return project.builder("build", *options, env=env)


def files_of(project: Project) -> dict[str, tuple[tarfile.TarInfo, bytes]]:
    """What is below /opt/uv in the layers that were made."""
    found = {}
    for path in (Path(project.env["BUILDER_CACHE_DIR"]) / "layers" / "blobs").iterdir():
        with path.open("rb") as blob:
            kind = compression_of(blob.read(4))
            blob.seek(0)
            if kind:
                with unpacked(blob, kind) as plain, tarfile.open(fileobj=plain, mode="r|") as tar:
                    for entry in tar:
                        if entry.name.startswith("opt/uv/"):
                            content = tar.extractfile(entry) if entry.isreg() else None
                            found[entry.name.removeprefix("opt/uv/")] = (entry, content.read() if content else b"")
    return found


def job_by_emulation(project: Project, folder: Path, shared: Shared) -> None:
    """Run a program of the image's environment as a job would, with an interpreter for its architecture."""
    try:
        python = emulated_python(shared)
    except NoEmulationError as reason:
        pytest.skip(f"no job on the image, which passed until here: {reason}")
    for blob in (Path(project.env["BUILDER_CACHE_DIR"]) / "layers" / "blobs").iterdir():
        with contextlib.suppress(tarfile.ReadError), tarfile.open(blob) as tar:
            inside = [entry for entry in tar if entry.name.startswith("opt/uv/venv/lib/")]
            tar.extractall(folder, [entry for entry in inside if not entry.islnk()], filter="tar")
            for entry in inside:  # of the cache, which is not unpacked here
                if entry.islnk() and (content := tar.extractfile(entry)):
                    (folder / entry.name).parent.mkdir(parents=True, exist_ok=True)
                    (folder / entry.name).write_bytes(content.read())
                    os.utime(folder / entry.name, (entry.mtime, entry.mtime))
    site = folder / "opt/uv/venv/lib/python3.13/site-packages"
    program = "from charset_normalizer.cli import cli_detect; cli_detect(['--version'])"
    argv = [*python, "-B", "-v", "-c", f"import sys; sys.path.insert(0, {str(site)!r}); {program}"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert "SpeedUp ON" in done.stdout, done.stdout + done.stderr[-2000:]  # its machine code runs
    cached = site / "charset_normalizer/__pycache__/api.cpython-313.pyc"
    assert f"# {cached} matches {site}/charset_normalizer/api.py" in done.stderr  # its bytecode is good


def selected_by_uv(project: Project, folder: Path) -> set[str]:
    """The packages that uv itself installs for the platform of the image."""
    machine = Platform(architecture=OTHER).machine
    uv, lock = find_uv_bin(), folder / "requirements.txt"
    subprocess.run([uv, "export", "--quiet", "--frozen", "-o", lock], cwd=project.folder, check=True)
    options = ["--python-version", "3.13", "--python-platform", f"{machine}-manylinux_2_36", "--only-binary", ":all:"]
    target = folder / "target"
    subprocess.run([uv, "pip", "install", "--quiet", "--no-deps", "--target", target, *options, "-r", lock], check=True)
    return {path.name for path in target.glob("*.dist-info")}


def test_image_for_another_architecture(project: Project, tmp_path: Path, shared: Shared) -> None:
    """Broken: an image for arm64 has this machine's code, paths or bytecode, or other packages than uv installs there.

    Where this machine can emulate the other architecture, a job runs with what is in the image.
    """
    done = build(project)
    assert done.returncode == 0, done.stderr
    (cell,) = json.loads(done.stdout)["cells"]
    assert cell["platform"] == f"linux/{OTHER}"
    assert docker("image", "inspect", "--format", "{{.Architecture}}", cell["tags"][0]) == OTHER
    files = files_of(project)
    libraries = {name: content for name, (_, content) in files.items() if name.endswith(".so") and content}
    assert libraries
    assert {int.from_bytes(content[18:20], "little") for content in libraries.values()} == {MACHINES[OTHER]}
    assert files["venv/bin/normalizer"][1].startswith(b"#!/opt/uv/venv/bin/python\n")
    assert files["venv/bin/python"][0].linkname == "/usr/local/bin/python3"
    assert b"home = /usr/local/bin\n" in files["venv/pyvenv.cfg"][1]
    site = "venv/lib/python3.13/site-packages/charset_normalizer"
    bytecode = files[f"{site}/__pycache__/api.cpython-313.pyc"][1]
    source, content = files[f"{site}/api.py"]
    assert (bytecode[:4], bytecode[8:12]) == (MAGIC, int(source.mtime).to_bytes(4, "little"))
    assert bytecode[12:16] == len(content or files[source.linkname.removeprefix("opt/uv/")][1]).to_bytes(4, "little")
    assert f"/opt/uv/{site}/api.py".encode() in bytecode
    assert {(entry.uid, entry.gid) for entry, _ in files.values()} == {(0, 0)}
    infos = {name.split("/")[4] for name in files if name.startswith("venv/lib/") and ".dist-info/" in name}
    assert {name for name in infos if not name.startswith("pip-")} == selected_by_uv(project, tmp_path)
    job_by_emulation(project, tmp_path / "job", shared)


def test_what_would_be_built_is_refused(project: Project, tmp_path: Path) -> None:
    """Broken: an sdist is built for this machine, and gets into an image of another."""
    shelf_folder = tmp_path / "shelf"
    shelf_folder.mkdir()
    (project.folder / "uv.lock").unlink()
    with open_shelf(shelf_folder) as shelf:
        project.packages(shelf.sdist("sourced"))
        done = build(project)
    assert done.returncode == 1, done.stdout
    assert "sourced has no wheel and would be built for this machine" in done.stderr


def test_no_python_for_bytecode(project: Project) -> None:
    """Broken: without a CPython of the image's minor version the error does not say how to give one."""
    env = {"UV_PYTHON_DOWNLOADS": "never", "PATH": "/usr/bin:/bin"}
    done = build(dataclasses.replace(project, env={**project.env, **env}))
    assert done.returncode == 3, done.stdout
    assert "no CPython 3.13 on this machine" in done.stderr
    assert "put a python3.13 on PATH, or have `uv python install 3.13` work" in done.stderr
