"""Several platforms: cells of their own that share tags, and what can be told of an image that nothing here runs."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from builder.engine.buildx import Buildx
from builder.errors import MatrixError, UsageError
from builder.gitlab.pipeline import Commands, pipeline_yaml, read_runners
from builder.image.index import indexes_of
from builder.image.render import RenderedImage
from builder.layer.assemble import AssembledImage, assemble
from builder.layer.blobs import Blobs
from builder.layer.find import FoundLayer
from builder.layer.store import LayerStore, StoredLayer
from builder.matrix.file import parse_matrix
from builder.matrix.model import Matrix, Platform
from builder.oci.reference import Mirrors
from builder.oci.registry import Registries
from builder.process import Completed
from builder.release.state import RegistryState
from builder.verify.architecture import check_architecture
from tests import assembled, cells
from tests.layers import built, chosen, digest, file, link, rendered, tar_of
from tests.matrices import SMALL

BOTH = 'platforms = ["linux/amd64", "linux/arm64"]\n'
AMD64, ARM64 = (Platform(architecture=each) for each in ("amd64", "arm64"))
NEW, OLD = digest(b"new"), digest(b"old")


def matrix(head: str = BOTH) -> Matrix:
    """A matrix with one Python and one base."""
    return parse_matrix(head + SMALL, source="matrix.toml")


def images(**changes: Any) -> list[RenderedImage]:
    """The images of a cell for both platforms."""
    pair = [replace(cells.debian(architecture=each.architecture), platforms=(AMD64, ARM64)) for each in (AMD64, ARM64)]
    return [rendered([chosen("one")], cell, moving_tags=(cell.tag,), **changes) for cell in pair]


def test_a_cell_for_each_platform() -> None:
    """Broken: cells of two platforms have one name, or tags that tell them apart."""
    several = matrix(f'{BOTH}aliases = {{ latest = "3.12-slim" }}\n')
    assert [(cell.name, cell.platform) for cell in several.cells] == [
        ("3.12-slim-amd64", AMD64), ("3.12-slim-arm64", ARM64),
    ]  # fmt: skip
    assert {several.moving_tags(cell) for cell in several.cells} == {("3.12-slim", "latest")}
    assert [(cell.name, several.by_tag().moving_tags(cell)) for cell in several.by_tag().cells] == [
        ("3.12-slim", ("3.12-slim", "latest"))
    ]
    one = several.on(ARM64)
    assert [cell.name for cell in one.cells] == ["3.12-slim-arm64"]
    assert one.aliases == several.aliases
    (alone,) = matrix('platforms = ["linux/arm64"]\n').cells
    assert alone == matrix('platform = "linux/arm64"\n').cells[0]
    assert alone.name == "3.12-slim"


def test_platform_that_the_matrix_has_not() -> None:
    """Broken: --platform adds an image to an index that is complete without it."""
    amd64 = replace(matrix().cells[0], platforms=(AMD64,))
    with pytest.raises(UsageError, match=r"linux/arm64 is none of the platforms of matrix\.toml"):
        replace(matrix(), cells=(amd64,)).on(ARM64)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f'platform = "linux/amd64"\n{BOTH}{SMALL}', "platform: is the only one, and platforms lists several"),
        (f'platforms = ["linux/arm64", "linux/arm64"]\n{SMALL}', "platforms: 'linux/arm64' is listed 2 times"),
        (f'platforms = ["linux/riscv64"]\n{SMALL}', "platforms.0: input should be 'linux/amd64' or 'linux/arm64'"),
        (
            BOTH + SMALL.replace('"slim"]', '"slim", "slim-arm64"]') + SMALL[SMALL.index("[bases") :].replace(
                "bases.slim", "bases.slim-arm64"
            ),
            "base: 'slim' for linux/arm64 and the base 'slim-arm64' have the same name",
        ),
    ],
)  # fmt: skip
def test_platforms_that_contradict(text: str, words: str) -> None:
    """Broken: a mistake in the platforms gives images that replace each other."""
    with pytest.raises(MatrixError) as raised:
        parse_matrix(text, source="matrix.toml")
    assert words in str(raised.value)


def test_index_is_complete_or_not_there() -> None:
    """Broken: the tag of an index depends on the order of the matrix, or an index lacks a platform."""
    amd64, arm64 = images()
    (index,) = indexes_of([arm64, amd64])
    assert index == indexes_of([amd64, arm64])[0]
    assert index.immutable_tag.tag == f"3.12-bookworm-slim-{index.key[:12]}"
    assert amd64.immutable_tag.tag == f"3.12-bookworm-slim-amd64-{amd64.key[:12]}"
    assert index.key != indexes_of(images(link_mode="symlink"))[0].key
    assert indexes_of([amd64]) == indexes_of([rendered([chosen("one")])]) == ()


@pytest.mark.parametrize(
    ("own", "index", "named", "status"),
    [
        (NEW, OLD, OLD, "up-to-date"),
        (NEW, OLD, NEW, "to-promote"),  # a tag that names one image alone
        (NEW, None, OLD, "to-promote"),
        (NEW, None, None, "to-promote"),
        (None, None, OLD, "moved"),
        (None, None, None, "new"),
    ],
)
def test_status(own: Any, index: Any, named: Any, status: str) -> None:
    """Broken: a cell counts as up to date while its tag names another index, or none."""
    image = images()[1]
    assert RegistryState(rendered=image, digest=own, moving={"3.12": named}, index=index).status == status


def test_runners_of_jobs() -> None:
    """Broken: an image is built, or verified, by a runner that cannot run its programs."""
    wheels = images()
    sources = [rendered([built("two")], image.plan.cell) for image in wheels]
    runners = read_runners(["linux/arm64=small,arm linux/amd64=big"])
    assert runners == {ARM64: ["small", "arm"], AMD64: ["big"]}

    def tags(of: list[RenderedImage]) -> dict[str, Any]:
        states = [RegistryState(rendered=image, digest=None, moving={}) for image in of]
        table = yaml.safe_load(pipeline_yaml(states, {"tags": ["any"]}, Commands(options=()), runners))
        return {name: job["tags"] for name, job in table.items() if name != "stages"}

    name = "3.12-bookworm-slim"
    verified = {f"verify {name}-amd64": ["big"], f"verify {name}-arm64": ["small", "arm"], "promote": ["any"]}
    assert tags(wheels) == {f"build {name}-amd64": ["any"], f"build {name}-arm64": ["any"], **verified}
    assert tags(sources) == {f"build {name}-amd64": ["big"], f"build {name}-arm64": ["small", "arm"], **verified}
    for wrong in ("linux/arm64", "linux/arm64=", "linux/arm64=a,,b", "linux/mips=a"):
        with pytest.raises(UsageError):
            read_runners([wrong])


def program(machine: int) -> bytes:
    """The header of a program for a machine (elf(5))."""
    return b"\x7fELF\x02\x01\x01".ljust(18, b"\0") + machine.to_bytes(2, "little") + bytes(44)


def bytecode(magic: int, *, time: int, size: int) -> bytes:
    """A .pyc file that notes this of its source (PEP 552)."""
    return b"".join(
        [magic.to_bytes(2, "little"), b"\r\n", bytes(4), time.to_bytes(4, "little"), size.to_bytes(4, "little")]
    )


SITE = "opt/uv/venv/lib/python3.12/site-packages"
GOOD = {
    "opt/uv/venv/pyvenv.cfg": b"home = /usr/local/bin\nversion_info = 3.12.4\n",
    "opt/uv/venv/bin/tool": b"#!/opt/uv/venv/bin/python\nimport tool\n",
    "usr/local/bin/uv": program(183),
    f"{SITE}/one.cpython-312-aarch64-linux-gnu.so": program(183),
    f"{SITE}/helper-amd64.so": program(62),  # data of a package, as debuggers have it
    f"{SITE}/one.py": b"x = 1\n",
    f"{SITE}/__pycache__/one.cpython-312.pyc": bytecode(3531, time=0, size=6),
}
LINKS = {"opt/uv/venv/bin/python": "/usr/local/bin/python3", "opt/uv/venv/bin/python3": "python"}


def image(folder: Path, files: dict[str, bytes], links: dict[str, str], hard: dict[str, str]) -> AssembledImage:
    """An image for arm64 whose layers have these files."""
    store = LayerStore(folder=folder)
    cell = replace(cells.debian(architecture="arm64"), platforms=(AMD64, ARM64))
    plan = assembled.plan(rendered([chosen("one")], cell))
    entries = [file(name, content) for name, content in files.items()]
    entries += [link(name, target) for name, target in links.items()]
    entries += [link(name, target, hard=True) for name, target in hard.items()]
    found = {}
    for number, layer in enumerate(plan.layers):
        plain = tar_of(*(entries if number == 0 else ()))
        blob = store.write(gzip.compress(plain, mtime=0))
        stored = StoredLayer(
            key=layer.key,
            digest=str(digest(blob)),
            size=len(blob),
            media_type=assembled.OCI,
            diff_id=str(digest(plain)),
        )
        found[layer.key] = FoundLayer(stored=stored, repository=None)
    return assemble(
        plan, assembled.base(store), found, (), Blobs(store=store, registries=Registries(Mirrors()), origins={})
    )


def test_image_that_nothing_here_runs(tmp_path: Path) -> None:
    """Broken: a good image for another platform is refused, or its checks are called passed."""
    hard = {"opt/uv/cache/one.py": f"{SITE}/one.py"}
    first, *others = check_architecture(image(tmp_path, GOOD, LINKS, hard))
    assert (first.name, first.verdict) == ("architecture", "passed")
    assert "2 modules and programs for aarch64, 1 scripts, 1 files of bytecode for 3.12; not run" in first.evidence
    assert {(each.verdict, each.evidence) for each in others} == {
        ("skipped", "this machine runs no programs for linux/arm64")
    }


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({f"{SITE}/one.cpython-312-aarch64-linux-gnu.so": program(62)}, "is for another architecture (e_machine 62"),
        ({"usr/local/bin/uv": program(62)}, "/usr/local/bin/uv is for another architecture"),
        ({f"{SITE}/two.abi3.so": program(62)}, "two.abi3.so is for another architecture"),
        ({"opt/uv/venv/bin/tool": b"#!/tmp/x/bin/python\n"}, "/opt/uv/venv/bin/tool begins with #!/tmp/x/bin/python"),
        ({"opt/uv/venv/pyvenv.cfg": b"home = \n"}, "pyvenv.cfg says home = "),
        ({"opt/uv/venv/pyvenv.cfg": b"home = /usr/bin\nversion_info = 3.12.5\n"}, "is for Python 3.12.5, not 3.12.4"),
        ({f"{SITE}/__pycache__/one.cpython-312.pyc": bytecode(3571, time=0, size=6)}, "is bytecode of another Python"),
        ({f"{SITE}/__pycache__/one.cpython-312.pyc": bytecode(3531, time=1, size=6)}, "is older than its source"),
        ({f"{SITE}/__pycache__/one.cpython-312.pyc": b""}, "is bytecode of another Python (magic number 0"),
        ({"-> opt/uv/cache/gone": "nowhere"}, "/opt/uv/cache/gone is a link to nowhere, which the image does not have"),
        ({"-> opt/uv/venv/lib64": "/srv/lib"}, "/opt/uv/venv/lib64 is a link to /srv/lib"),
        ({"=> opt/uv/cache/gone": "opt/nowhere"}, "is a link to /opt/nowhere, which its layer does not have"),
    ],
)
def test_wrong_image_that_nothing_here_runs(tmp_path: Path, changed: dict[str, Any], words: str) -> None:
    """Broken: an image with this machine's code, paths or bytecode is pushed for another platform."""
    files = {**GOOD, **{name: content for name, content in changed.items() if isinstance(content, bytes)}}
    links = {**LINKS, **{name[3:]: to for name, to in changed.items() if name.startswith("-> ")}}
    hard = {name[3:]: to for name, to in changed.items() if name.startswith("=> ")}
    first = check_architecture(image(tmp_path, files, links, hard))[0]
    assert first.verdict == "failed"
    assert words in first.evidence


@pytest.mark.parametrize(
    ("printed", "runs"),
    [
        ("Platforms:        linux/amd64, linux/amd64/v2, linux/arm64*, linux/386\n", {AMD64, ARM64}),
        (
            "Platforms: linux/amd64\nName: second\nPlatforms: linux/arm64*\n",
            {AMD64, ARM64},
        ),  # two machines
        ("Platforms: \n", {Platform.of_this_machine()}),  # it has not started yet
        ("", {Platform.of_this_machine()}),
    ],
)
def test_platforms_that_a_builder_runs(printed: str, runs: set[Platform]) -> None:
    """Broken: an image for another platform is built where nothing runs it, or not built where something does."""
    buildx = Buildx()
    vars(buildx)["_inspected"] = Completed(argv=(), returncode=0, stdout=printed, stderr="")
    assert {platform for platform in (AMD64, ARM64) if buildx.runs(platform)} == runs
