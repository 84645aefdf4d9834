"""An image is assembled of layers: its manifest, its config, and the small layer at its end."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import zstandard

from builder.contract import INPUTS_LABEL, KEY_LABEL, LAYER_DIFF_ID, LAYER_KEY
from builder.errors import RegistryError
from builder.layer.assemble import AssembledImage, assemble
from builder.layer.blobs import Blobs
from builder.layer.find import FoundLayer
from builder.layer.store import LayerStore, StoredLayer
from builder.oci.reference import Digest, Mirrors
from builder.oci.registry import Registries
from tests.assembled import BASE_HISTORY, BASE_PLAIN, DOCKER, OCI, assembled, base, names, plan, read
from tests.layers import chosen, digest, file, rendered, tar_of

BLOB = str(digest(b"a layer"))


def config(image: AssembledImage) -> dict[str, Any]:
    """The image's config."""
    table: dict[str, Any] = json.loads(image.config_bytes)
    return table


def test_layers_are_in_order(tmp_path: Path) -> None:
    """Broken: a layer is missing, or hides files of the one that should be above it."""
    image = assembled(tmp_path)
    own = [names(read(image, layer.digest)) for layer in image.manifest.body.layers]
    expected = [[f"opt/{layer.key}"] for layer in image.plan.layers]
    notes = ["opt/uv/pylock.toml", "usr/local/bin/prebuilt-status", "usr/local/lib/prebuilt/bin/python"]
    assert own == [["etc/base"], ["etc/base"], *expected, notes]
    assert image.size == sum(len(read(image, layer.digest)) for layer in image.manifest.body.layers)


def test_plain_digests_match_the_layers(tmp_path: Path) -> None:
    """Broken: engines refuse the image, because a layer is not what its config says."""
    image = assembled(tmp_path)
    plain = [gzip.decompress(read(image, layer.digest)) for layer in image.manifest.body.layers]
    assert config(image)["rootfs"] == {"type": "layers", "diff_ids": [str(digest(each)) for each in plain]}
    assert tuple(plain[:2]) == BASE_PLAIN


def test_history_matches_the_layers(tmp_path: Path) -> None:
    """Broken: engines show a layer under another step, or builder takes its own layers for the base's."""
    image = assembled(tmp_path)
    history = config(image)["history"]
    assert tuple(history[:3]) == BASE_HISTORY
    assert history[3]["created_by"].startswith("LABEL io.gitlab.prebuilt.")
    assert history[3]["empty_layer"]
    titles = [layer.title for layer in image.plan.layers]
    assert [entry["created_by"] for entry in history[4:]] == [f"builder: {title}" for title in [*titles, "notes"]]
    with_layer = [entry for entry in history if not entry.get("empty_layer")]
    assert len(with_layer) == len(image.manifest.body.layers)


@pytest.mark.parametrize("history", [None, [], [{"created_by": "only one"}], [{"empty_layer": True}] * 4])
def test_base_without_history(tmp_path: Path, history: Any) -> None:
    """Broken: with a base whose history tells nothing of its layers, each layer of the image gets a wrong entry."""
    image = assembled(tmp_path, base_image=base(LayerStore(folder=tmp_path), history=history))
    entries = [entry for entry in config(image)["history"] if not entry.get("empty_layer")]
    assert len(entries) == len(image.manifest.body.layers)
    assert [entry["created_by"] for entry in entries[:3]] == ["base", "base", "builder: uv"]


def test_environment(tmp_path: Path) -> None:
    """Broken: a job lacks a variable, or the base's own are lost."""
    lines = config(assembled(tmp_path))["config"]["Env"]
    env = dict(line.split("=", 1) for line in lines)
    assert len(env) == len(lines)
    assert env["PATH"] == "/opt/uv/venv/bin:/usr/local/lib/prebuilt/bin:/base/bin:/bin"
    assert (env["PYTHON_VERSION"], env["EMPTY"], env["UV_LINK_MODE"]) == ("3.12.4", "", "copy")
    assert env["VIRTUAL_ENV"] == "/opt/uv/venv"


@pytest.mark.parametrize("section", [None, {}, {"Env": None, "Labels": None}])
def test_base_without_settings(tmp_path: Path, section: Any) -> None:
    """Broken: a base that sets nothing gives a traceback, or an image without a PATH."""
    image = assembled(tmp_path, base_image=base(LayerStore(folder=tmp_path), section=section))
    lines = config(image)["config"]["Env"]
    own = "/opt/uv/venv/bin:/usr/local/lib/prebuilt/bin"
    assert f"PATH={own}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" in lines
    assert KEY_LABEL in config(image)["config"]["Labels"]


def test_labels_and_other_settings(tmp_path: Path) -> None:
    """Broken: builder does not know its own image again, or a setting of the base is lost."""
    store = LayerStore(folder=tmp_path)
    image = assembled(tmp_path, base_image=base(store, variant="v8", features=["x"]))
    section = config(image)["config"]
    assert (section["Cmd"], section["WorkingDir"]) == (["python3"], "/srv")
    assert section["Labels"]["maintainer"] == "jane"
    assert section["Labels"][KEY_LABEL] == image.rendered.key
    assert json.loads(section["Labels"][INPUTS_LABEL])["packages"] == {"large": "1.0", "small": "1.0"}
    assert section["Labels"]["org.opencontainers.image.base.digest"] == str(image.rendered.plan.base.digest)
    assert (config(image)["features"], config(image)["variant"]) == (["x"], "v8")


def test_same_inputs_give_the_same_image(tmp_path: Path) -> None:
    """Broken: a build without changes gives another digest, so that every job pulls the image again."""
    first = assembled(tmp_path)
    time.sleep(1.1)  # its time is to the second
    second = assembled(tmp_path)
    assert first.manifest.content == second.manifest.content
    assert first.config_bytes == second.config_bytes


def test_other_selection_gives_another_image(tmp_path: Path) -> None:
    """Broken: an image's note of its selection is that of an earlier one."""
    one, two = (assembled(tmp_path, plan(rendered([chosen("small", version)]))) for version in ("1.0", "2.0"))
    assert one.digest != two.digest


def test_media_types_become_those_of_oci(tmp_path: Path) -> None:
    """Broken: a manifest mixes Docker's media types with OCI's, which some registries refuse."""
    image = assembled(tmp_path, base_image=base(LayerStore(folder=tmp_path), kind=DOCKER))
    assert {layer["mediaType"] for layer in image.manifest.table["layers"]} == {OCI}
    assert image.manifest.media_type == "application/vnd.oci.image.manifest.v1+json"
    assert image.manifest.table["config"]["mediaType"] == "application/vnd.oci.image.config.v1+json"


def test_zstd_layers_of_a_base_stay_so(tmp_path: Path) -> None:
    """Broken: a layer is announced with another compression than it has."""
    kind = "application/vnd.oci.image.layer.v1.tar+zstd"
    image = assembled(tmp_path, base_image=base(LayerStore(folder=tmp_path), kind=kind))
    assert [layer["mediaType"] for layer in image.manifest.table["layers"]][:2] == [kind, kind]


def test_layers_carry_their_keys(tmp_path: Path) -> None:
    """Broken: layers are not found again in yesterday's image, or the base's are taken for builder's."""
    image = assembled(tmp_path)
    marks = [layer.get("annotations", {}) for layer in image.manifest.table["layers"]]
    assert marks[0] == marks[1] == marks[-1] == {}
    assert [mark[LAYER_KEY] for mark in marks[2:-1]] == [layer.key for layer in image.plan.layers]
    assert [mark[LAYER_DIFF_ID] for mark in marks[2:-1]] == config(image)["rootfs"]["diff_ids"][2:-1]


def test_what_earlier_images_proved(tmp_path: Path) -> None:
    """Broken: a wheel is not compared with its files although a layer that has it is new, or bytecode on a new base."""
    layers = plan().layers
    trees = {"stdlib": [], "uv": [], "environment": ["pip-26"], "large": ["large-1", "both-1"], "small": ["both-1"]}

    def found(proven: set[str]) -> dict[str, FoundLayer]:
        made = {}
        for layer in layers:
            name = layer.packages[0].name if layer.packages else layer.kind
            stored = StoredLayer(
                key=layer.key, digest=BLOB, size=1, media_type=OCI, diff_id=BLOB,
                trees=dict.fromkeys(trees[name], BLOB),
            )  # fmt: skip
            made[layer.key] = FoundLayer(stored=stored, repository=None, proven=name in proven)
        return made

    def proven(*names: str) -> set[str]:
        store = LayerStore(folder=tmp_path)
        blobs = Blobs(store=store, registries=Registries(Mirrors()), origins={})
        return set(assemble(plan(), base(store), found(set(names)), (), blobs).proven)

    assert proven() == set()
    assert proven("large") == {"large-1"}
    assert proven("large", "small", "environment") == {"large-1", "both-1", "pip-26"}
    assert proven("stdlib", "uv") == {"stdlib"}


def test_notes(tmp_path: Path) -> None:
    """Broken: an image lacks its selection or prebuilt-status, or a job may not run or read them."""
    image = assembled(tmp_path)
    packed = read(image, image.manifest.body.layers[-1].digest)
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        found = {entry.name: (entry.mode, entry.uid, tar.extractfile(entry)) for entry in tar}
        contents = {name: content.read() for name, (_, _, content) in found.items() if content}
    files = dict(image.rendered.files)
    assert contents == {
        "opt/uv/pylock.toml": files["pylock.toml"],
        "usr/local/bin/prebuilt-status": files["prebuilt-status"],
        "usr/local/lib/prebuilt/bin/python": files["system_python.py"],
    }
    assert [(mode, uid) for mode, uid, _ in found.values()] == [(0o644, 0), (0o755, 0), (0o755, 0)]


def test_blob_that_is_nowhere(tmp_path: Path) -> None:
    """Broken: a blob that neither the store nor a registry has causes a traceback."""
    image = assembled(tmp_path)
    lost = Digest.from_str(image.manifest.body.layers[-1].digest)
    image.blobs.store.path(lost).unlink()
    with pytest.raises(RegistryError, match=lost.hex):
        image.open_blob(lost)


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress, bytes])
def test_blob_is_unpacked(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    """Broken: a layer of system packages that was found cannot be unpacked below another step."""
    plain = tar_of(file("a", b"x" * 100_000))
    blob = pack(plain)
    store = LayerStore(folder=tmp_path)
    store.write(blob)
    blobs = Blobs(store=store, registries=Registries(Mirrors()), origins={})
    with blobs.open_plain(digest(blob)) as opened:
        assert opened.read() == plain


def test_interpreter_of_a_base(tmp_path: Path) -> None:
    """Broken: layers with bytecode of one interpreter are used with another one."""
    store = LayerStore(folder=tmp_path)
    official, own = base(store), base(store, section={"Env": ["PATH=/bin"]})
    assert official.interpreter == "3.12.4"
    assert own.interpreter == str(own.manifest.digest)
    assert replace(own, config_bytes=b"{}").interpreter == str(own.manifest.digest)
