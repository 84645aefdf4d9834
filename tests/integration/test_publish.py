"""`builder build --push` night after night: only changed cells are rebuilt, and the tags move together."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from pathlib import Path

import pytest
import requests

from tests.integration.conftest import docker, own_name, second_engine
from tests.integration.faults import between
from tests.integration.nightly import SLIM, TAGS, Nightly, put_foreign, standing
from tests.integration.registries import Registry, a_guarded_registry, a_keeping_registry, an_open_registry
from tests.integration.seeds import Seeds, published_once
from tests.integration.test_faults import stand_in

pytestmark = pytest.mark.integration

__all__ = ["a_guarded_registry", "a_keeping_registry", "an_open_registry", "published_once"]

ONE = ("--only", "python=3.13")
NO_ENGINE = {"DOCKER_HOST": "unix:///run/no-such-docker.sock"}


@pytest.fixture
def nightly(open_registry: Registry, tmp_path: Path, request: pytest.FixtureRequest) -> Nightly:
    """The project with its own repository."""
    name = own_name(request)
    made = Nightly(folder=tmp_path, repository=f"{open_registry.host}/{name}", env={})
    made.lock()
    made.matrix()
    return made


def path_of(nightly: Nightly) -> str:
    """The repository's path in its registry."""
    return nightly.repository.partition("/")[2]


def test_second_night_does_nothing(nightly: Nightly, open_registry: Registry, seeds: Seeds) -> None:
    """Broken: a run without changes needs an engine, or more than two requests per cell and one per base and uv."""
    seeds.publish(nightly)
    before = standing(open_registry.host, path_of(nightly))
    assert all(before.values())
    with between(open_registry.host) as proxy:
        (nightly.folder / "matrix.toml").write_text(
            (nightly.folder / "matrix.toml").read_text().replace(open_registry.host, proxy.host)
        )
        done = nightly.builder("build", "--push", env=NO_ENGINE)
        assert done.returncode == 0, done.stderr
        assert "nothing to do: 2 cells are up to date" in done.stderr
        assert sorted(exchange.method for exchange in proxy.exchanges) == ["HEAD"] * 4
    assert standing(open_registry.host, path_of(nightly)) == before


def test_windows_bump_rebuilds_nothing(nightly: Nightly, seeds: Seeds) -> None:
    """Broken: a change of a package that no cell installs causes a rebuild."""
    seeds.publish(nightly)
    nightly.lock(colorama="0.4.6")
    assert nightly.outcomes() == dict.fromkeys(TAGS, "up-to-date")


def test_marker_bump_rebuilds_the_one_cell(nightly: Nightly, seeds: Seeds) -> None:
    """Broken: a package for one Python rebuilds other cells, or the plan does not say why."""
    seeds.publish(nightly)
    nightly.lock(tomli="2.0.2")
    cells = nightly.plan()
    assert (cells["3.11-slim"]["status"], cells["3.11-slim"]["reasons"]) == ("moved", ["package tomli: 2.0.1 → 2.0.2"])
    assert (cells["3.13-slim"]["status"], cells["3.13-slim"]["reasons"]) == ("up-to-date", [])
    assert nightly.builder("plan", "--exit-code").returncode == 1
    assert nightly.outcomes() == {"3.11-slim": "pushed", "3.13-slim": "up-to-date"}
    assert nightly.builder("plan", "--exit-code").returncode == 0


def test_new_base_rebuilds_the_cells_on_it(
    nightly: Nightly, open_registry: Registry, tmp_path: Path, seeds: Seeds
) -> None:
    """Broken: a new base image under the same tag rebuilds other cells, or not its own."""
    seeds.publish(nightly, *ONE, tags=["3.13-slim"])

    def put_base(label: str) -> None:
        (tmp_path / "Dockerfile").write_text(f"FROM {stand_in('python:3.13-slim-bookworm')}\nLABEL round={label}\n")
        name = f"{open_registry.host}/bases/python:3.13-slim-bookworm"
        argv = ["docker", "build", "--quiet", "--provenance=false", "--tag", name, str(tmp_path)]
        subprocess.run(argv, check=True, capture_output=True)
        docker("push", "--quiet", name)

    extra = f'[bases.own]\nimage = "{open_registry.host}/bases/python:{{python}}-slim-bookworm"\nfamily = "debian"\n'
    put_base("1")
    nightly.matrix(extra="\n" + extra)
    text = (nightly.folder / "matrix.toml").read_text().replace('["3.11", "3.13"]', '["3.13"]')
    (nightly.folder / "matrix.toml").write_text(text.replace('base = ["slim"]', 'base = ["slim", "own"]'))
    assert nightly.outcomes() == {"3.13-slim": "up-to-date", "3.13-own": "pushed"}
    put_base("2")
    (reason,) = nightly.plan()["3.13-own"]["reasons"]
    assert reason.startswith("base: ")
    assert nightly.outcomes() == {"3.13-slim": "up-to-date", "3.13-own": "pushed"}


def test_settings_and_refresh_are_reasons(nightly: Nightly, seeds: Seeds) -> None:
    """Broken: a changed setting is not named, or `refresh` applies to a cell without system packages."""
    seeds.publish(nightly)
    nightly.matrix(extra='link-mode = "symlink"\nrefresh = "daily"')
    assert nightly.plan()["3.13-slim"]["reasons"] == ["setting link-mode: copy → symlink"]
    nightly.matrix(extra='refresh = "monthly"')
    assert nightly.plan()["3.13-slim"]["status"] == "up-to-date"
    text = (nightly.folder / "matrix.toml").read_text()
    (nightly.folder / "matrix.toml").write_text(text + 'packages = ["netbase"]\n')
    keys = []
    for epoch in ("1793500000", "1793500001", "1797000000"):  # twice in November, once in December
        done = nightly.builder("plan", "--json", "--only", "python=3.13", env={"SOURCE_DATE_EPOCH": epoch})
        keys.append(json.loads(done.stdout)["cells"][0]["key"])
    assert keys[0] == keys[1] != keys[2]


def test_rollback_and_back_again(nightly: Nightly, open_registry: Registry, seeds: Seeds) -> None:
    """Broken: `rollback` does not restore the earlier images, or the next run builds the new ones again."""
    seeds.publish(nightly)
    before = standing(open_registry.host, path_of(nightly))
    nightly.lock(idna="3.11")
    seeds.publish(nightly)
    after = standing(open_registry.host, path_of(nightly))
    assert set(before.values()).isdisjoint(after.values())
    assert nightly.builder("rollback", env=NO_ENGINE).returncode == 0
    assert standing(open_registry.host, path_of(nightly)) == before
    assert nightly.builder("build", "--push", env=NO_ENGINE).returncode == 0
    assert standing(open_registry.host, path_of(nightly)) == after


def test_build_split_over_machines(nightly: Nightly, open_registry: Registry) -> None:
    """Broken: several machines that build, and one that promotes, have another result than one machine."""
    for python in ("3.11", "3.13"):
        done = nightly.builder("build", "--push", "--promote", "none", "--only", f"python={python}")
        assert done.returncode == 0, done.stderr
        assert standing(open_registry.host, path_of(nightly)) == dict.fromkeys(TAGS)
        if python == "3.11":
            early = nightly.builder("promote", env=NO_ENGINE)
            assert early.returncode == 4
            assert "3.13-slim-" in early.stderr
    done = nightly.builder("promote", env=NO_ENGINE)
    assert done.returncode == 0, done.stderr
    assert all(standing(open_registry.host, path_of(nightly)).values())


def test_push_of_images_built_earlier(nightly: Nightly, open_registry: Registry) -> None:
    """Broken: an image that was built and verified on a laptop is pushed changed, or not at all."""
    assert nightly.builder("build").returncode == 0
    dry = nightly.builder("push", "--dry-run")
    assert dry.stdout.count("push  ") == 2
    assert standing(open_registry.host, path_of(nightly)) == dict.fromkeys(TAGS)
    done = nightly.builder("push")
    assert done.returncode == 0, done.stderr
    assert all(standing(open_registry.host, path_of(nightly)).values())


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_pushed_image_is_the_verified_one(nightly: Nightly, compression: str) -> None:
    """Broken: the image that a runner pulls fails verification, depending on its compression."""
    nightly.matrix(extra=f'compression = "{compression}"')
    assert nightly.outcomes("--only", "python=3.13") == {"3.13-slim": "pushed"}
    image = f"{nightly.repository}:3.13-slim"
    with second_engine(megabytes=2000) as address:
        docker("--host", address, "pull", "--quiet", image)
        done = nightly.builder("verify", image, env={"DOCKER_HOST": address})
    assert done.returncode == 0, done.stdout + done.stderr


def test_zstd_base_in_a_gzip_image(nightly: Nightly, tmp_path: Path) -> None:
    """Broken: layers of a base with another compression are published changed, or with the wrong media type."""
    base = f"{nightly.repository.partition('/')[0]}/zstd-bases/python:3.13-slim-bookworm"
    (tmp_path / "Dockerfile").write_text(f"FROM {stand_in('python:3.13-slim-bookworm')}\n")
    output = f"type=registry,name={base},compression=zstd,force-compression=true,oci-mediatypes=true"
    argv = ["docker", "buildx", "build", "--quiet", "--provenance=false", "--output", output, str(tmp_path)]
    subprocess.run(argv, check=True, capture_output=True)
    host, _, path = nightly.repository.partition("/")
    of_base = layers_of(host, "zstd-bases/python", "3.13-slim-bookworm")
    assert {kind for kind, _ in of_base} == {"zstd"}
    nightly.matrix(base=base.replace("3.13", "{python}"))
    assert nightly.outcomes("--only", "python=3.13") == {"3.13-slim": "pushed"}
    pushed = layers_of(host, path, "3.13-slim")
    assert pushed[: len(of_base)] == of_base
    for kind, content in pushed[len(of_base) :]:
        assert kind == "gzip"
        assert content.startswith(b"\x1f\x8b")
        with tarfile.open(fileobj=io.BytesIO(content)) as layer:
            assert layer.getnames()


def layers_of(host: str, path: str, tag: str) -> list[tuple[str, bytes]]:
    """The layers of an image in an open registry: their media types and bytes."""
    accept = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
    manifest = requests.get(f"http://{host}/v2/{path}/manifests/{tag}", headers=accept, timeout=30).json()
    return [
        (layer["mediaType"].rpartition("+")[2],
         requests.get(f"http://{host}/v2/{path}/blobs/{layer['digest']}", timeout=30).content)
        for layer in manifest["layers"]
    ]  # fmt: skip


def test_fresh_runner_finds_layers_in_the_registry(nightly: Nightly, tmp_path: Path) -> None:
    """Broken: a runner that starts empty makes layers again that are in the registry."""
    nightly.outcomes("--only", "python=3.13")
    arguments = ("build", "--no-verify", "--only", "python=3.13")
    with second_engine(megabytes=2000) as address:
        # Its containers have no network: what has to be made cannot be made.
        empty = {"DOCKER_HOST": address, "BUILDER_CACHE_DIR": str(tmp_path / "empty")}
        done = nightly.builder(*arguments, env=empty)
        assert done.returncode == 0, done.stderr
        nightly.lock(idna="3.11")
        assert nightly.builder(*arguments, env=empty).returncode == 1


def test_diff(nightly: Nightly, seeds: Seeds) -> None:
    """Broken: `builder diff` does not list the packages that differ between two images, or an image and the plan."""
    seeds.publish(nightly, *ONE, tags=["3.13-slim"])
    old = nightly.plan()["3.13-slim"]["tags"][0].rpartition(":")[2]
    nightly.lock(idna="3.11")
    planned = json.loads(nightly.builder("diff", old, "--json").stdout)
    assert planned["packages"] == ["package idna: 3.10 → 3.11"]
    assert planned["shared_bytes"] is None
    seeds.publish(nightly, *ONE, tags=["3.13-slim"])
    found = json.loads(nightly.builder("diff", old, "3.13-slim", "--json").stdout)
    assert found["packages"] == ["package idna: 3.10 → 3.11"]
    assert found["base"] == found["uv"] == found["python"] == found["system_packages"] == []
    assert found["shared_bytes"] > found["new_bytes"] > 0
    none = nightly.builder("diff", "no-such-tag")
    assert (none.returncode, none.stdout) == (2, "")


def test_prune_keeps_what_is_named(nightly: Nightly, open_registry: Registry, seeds: Seeds) -> None:
    """Broken: prune deletes a tag that something names, or an image that is not builder's."""
    keys = []
    for idna in ("3.8", "3.9", "3.10"):
        nightly.lock(idna=idna)
        seeds.publish(nightly, *ONE, tags=["3.13-slim"])
        keys.append(nightly.plan()["3.13-slim"]["tags"][0].rpartition(":")[2])
    foreign = put_foreign(open_registry.host, path_of(nightly), "3.13-slim-0123456789ab")
    every = [*keys, "3.13-slim", "3.13-slim-0123456789ab"]
    before = standing(open_registry.host, path_of(nightly), every)
    assert nightly.builder("prune", "--hours", "0", "--keep", "3").stdout == ""
    assert nightly.builder("prune", "--keep", "1").stdout == ""  # built just now: another run may be about to use it
    dry = nightly.builder("prune", "--hours", "0", "--keep", "1")
    assert dry.stdout.split() == [f"{nightly.repository}:{keys[0]}"]
    assert standing(open_registry.host, path_of(nightly), every) == before
    done = nightly.builder("prune", "--hours", "0", "--keep", "1", "--delete")
    assert done.returncode == 0, done.stderr
    assert standing(open_registry.host, path_of(nightly), every) == {**before, keys[0]: None}
    assert before["3.13-slim-0123456789ab"] == foreign


def test_prune_where_the_registry_does_not_delete(keeping_registry: Registry, tmp_path: Path, seeds: Seeds) -> None:
    """Broken: the error does not say that the registry does not allow deletion."""
    nightly = Nightly(folder=tmp_path, repository=f"{keeping_registry.host}/kept", env={})
    nightly.matrix()
    for idna in ("3.9", "3.10"):
        nightly.lock(idna=idna)
        seeds.publish(nightly, *ONE, tags=["3.13-slim"])
    done = nightly.builder("prune", "--hours", "0", "--keep", "0", "--delete")
    assert done.returncode == 3
    assert "does not allow deletion" in done.stderr


def test_password_and_private_ca(guarded_registry: Registry, tmp_path: Path) -> None:
    """Broken: a logged-in user cannot push to a registry with a password and a private CA."""
    environment = guarded_registry.environment(tmp_path / "docker")
    nightly = Nightly(folder=tmp_path, repository=f"{guarded_registry.host}/acme/ci", env=environment)
    nightly.lock()
    nightly.matrix()
    assert nightly.outcomes(*ONE) == {"3.13-slim": "pushed"}
    assert nightly.outcomes(*ONE) == {"3.13-slim": "up-to-date"}
    wrong = nightly.builder(
        "build", "--push", *ONE, env=guarded_registry.environment(tmp_path / "wrong", password="nope")
    )
    assert (wrong.returncode, wrong.stdout) == (3, "")
    assert "docker login" in wrong.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("build", "--push"), "no repository to push to"),
        (("build", "--push", "--no-verify"), "--push with --no-verify"),
        (("build", "--verify-later", "x"), "--verify-later without --push"),
        (("build", "--push", "--verify-later", "x", "--promote", "passed"), "--verify-later without --push, or with"),
        (("promote", "--results", "x", "--dry-run"), "--results with --dry-run"),
        (("prune",), "no repository to prune"),
    ],
)
def test_push_without_a_repository(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    """Broken: builder builds images although there is no repository to push to."""
    nightly = Nightly(folder=tmp_path, repository="x", env={"CI_REGISTRY_IMAGE": ""})
    nightly.lock()
    nightly.matrix(base=SLIM)
    text = (tmp_path / "matrix.toml").read_text().partition("\n")[2]
    (tmp_path / "matrix.toml").write_text(text)
    done = nightly.builder(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
