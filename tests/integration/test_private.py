"""Private indexes and git, behind a password and a company's own CA, as in a company's network."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import certifi
import pytest

from tests.integration.conftest import docker
from tests.integration.private import NAME, PrivateServer, open_private_server
from tests.integration.registries import Registry, an_open_registry
from tests.integration.shelf import Project, Shelf
from tests.integration.test_canaries import Search, canary, encodings
from tests.integration.test_faults import stand_in
from tests.integration.test_publish import NO_ENGINE

pytestmark = pytest.mark.integration

__all__ = ["an_open_registry"]

OverSsh = tuple[dict[str, Any], dict[str, str]]  # a package in a lock, and variables
PASSWORD, ROTATED = canary("index+/%&<"), canary("rotated&")
PYPROJECT = """\
[project]
name = "private-user"
version = "1"
requires-python = ">=3.13"

[tool.uv]
package = false

[[tool.uv.index]]
name = "acme"
url = "{mirror}/simple"
explicit = true

[[tool.uv.index]]
url = "{url}/simple"
default = true
"""
ELSEWHERE = "https://index.invalid"  # what the lock names, and nobody reaches
MATRIX = """\
ca = "company.pem"
index-mirrors = {{ "{elsewhere}" = "{url}" }}
ssh = {{ known-hosts = "OUR_HOSTS", key = "OUR_KEY" }}

[credentials."{host}"]
username = "gitlab-ci-token"
password = "CI_JOB_TOKEN"
"""
# In a job, without any login: what trusts the company's CA.
JOB = """\
python -c 'import private_lib, forked, overssh'
uv pip install --quiet --no-cache --no-deps --target /tmp/uv --index-url {url}/open/simple open-lib
pip install --quiet --no-deps --target /tmp/pip --index-url {url}/open/simple open-lib
python -c 'import urllib.request; urllib.request.urlopen("{url}/open/").read()'
python -c 'from pip._vendor import requests; requests.get("{url}/open/").raise_for_status()'
GIT_TERMINAL_PROMPT=0 git ls-remote {url}/git/forked.git 2>&1 | grep 'could not read Username'
"""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[PrivateServer]:
    """The company's server."""
    page = tmp_path / "www" / "open" / "simple" / "open-lib"
    page.mkdir(parents=True)
    name = Shelf(folder=page, url="").wheel("open-lib")["wheels"][0]["name"]
    (page / "index.html").write_text(f'<a href="{name}">{name}</a>')
    with open_private_server(tmp_path / "www") as server:
        yield server


@pytest.fixture
def base_with_git(open_registry: Registry) -> Iterator[str]:
    """A base image that has git, as companies have them; with {python} in its name.

    Without the perl that git's package asks for, because a stand-in's perl may not fit the one that Debian has.
    """
    name = f"{open_registry.host}/company/python"
    lines = [
        f"FROM {stand_in('python:3.13-slim-bookworm')}",
        "RUN apt-get update && apt-get install -y --no-install-recommends libcurl3-gnutls libexpat1 libpcre2-8-0 \\",
        "        openssh-client openssh-server && \\",
        "    cd /tmp && apt-get download git && dpkg --install --force-depends git_*.deb && rm git_*.deb",
    ]
    argv = ["docker", "build", "--quiet", "--provenance=false", "--tag", f"{name}:3.13-slim-bookworm", "-"]
    subprocess.run(argv, input="\n".join(lines), text=True, check=True, capture_output=True)
    docker("push", "--quiet", f"{name}:3.13-slim-bookworm")
    yield name + ":{python}-slim-bookworm"
    docker("image", "rm", "--force", f"{name}:3.13-slim-bookworm")


@pytest.fixture
def ssh_server(place: PrivateServer, base_with_git: str, tmp_path: Path) -> Iterator[OverSsh]:
    """A git server that is reached by SSH: a package on it, and the variables with which builds reach it."""
    key, host_key = tmp_path / "key", tmp_path / "host_key"
    for path in (key, host_key):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)], check=True)
    package = place.repository("overssh")
    options = "-D -e -o PasswordAuthentication=no -o StrictModes=no -o AuthorizedKeysFile=/keys"
    script = (
        "mkdir -p /run/sshd; cp /mount/key.pub /keys; cp /mount/host_key /host_key; chmod 600 /host_key\n"
        "git config --system --add safe.directory '*'; ln -s /mount/www/git /git\n"
        f"exec /usr/sbin/sshd -h /host_key {options}"
    )
    image = base_with_git.format(python="3.13")
    started = docker("run", "--detach", "--rm", "--volume", f"{tmp_path}:/mount:ro", image, "sh", "-c", script)
    try:
        form = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        address = docker("inspect", "--format", form, started)
        known = tmp_path / "known_hosts"
        known.write_text(f"{address} {host_key.with_suffix('.pub').read_text()}")
        vcs = {**package["vcs"], "url": f"ssh://root@{address}/git/overssh.git"}
        yield {**package, "vcs": vcs}, {"OUR_HOSTS": str(known), "OUR_KEY": str(key)}
    finally:
        docker("rm", "--force", started)


def key_lines(path: Path) -> set[bytes]:
    """The lines of a key that tell it from others: the first one is the same in all."""
    return set(path.read_bytes().splitlines()[2:-1])


def json_forms(secret: str) -> set[bytes]:
    """The secret as JSON writes it, in Python and in Go, and as addresses write it."""
    escaped = json.dumps(secret)[1:-1]
    in_go = escaped.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
    return {each.encode() for each in (escaped, in_go, quote(secret), quote(secret, safe=""))}


def test_private_index_and_git(
    place: PrivateServer,
    ssh_server: OverSsh,
    base_with_git: str,
    open_registry: Registry,
    tmp_path: Path,
    scratch_repository: str,
) -> None:
    """Broken: private packages cannot be baked, their passwords leak, a new password rebuilds, or jobs lack the CA."""
    folder = tmp_path / "project"
    folder.mkdir()
    bundle = tmp_path / "trusted.pem"
    bundle.write_bytes(Path(os.environ.get("SSL_CERT_FILE") or certifi.where()).read_bytes() + b"\n" + place.ca)
    env = {"BUILDER_CACHE_DIR": str(tmp_path / "cache"), "SSL_CERT_FILE": str(bundle), **ssh_server[1]}
    project = Project(folder=folder, repository=scratch_repository, env=env)
    host = place.url.removeprefix("https://").partition(":")[0]
    project.one_cell(extra=MATRIX.format(host=host, url=place.url, elsewhere=ELSEWHERE), base=base_with_git)
    (folder / "company.pem").write_bytes(place.ca)
    (folder / "pyproject.toml").write_text(PYPROJECT.format(url=ELSEWHERE, mirror=place.url))
    wheel = place.shelf.wheel("private-lib")
    wheel["wheels"][0]["url"] = wheel["wheels"][0]["url"].replace(place.url, ELSEWHERE)
    project.packages({**wheel, "index": f"{ELSEWHERE}/simple"}, place.repository("forked"), ssh_server[0])

    place.admit("jane", PASSWORD)
    logs = tmp_path / "logs"
    login = {"UV_INDEX_ACME_USERNAME": "jane", "UV_INDEX_ACME_PASSWORD": PASSWORD}
    built = project.builder("-v", "build", "--json", "--log-dir", str(logs), env=login)
    assert built.returncode == 0, built.stderr
    assert {path.split("/")[1] for path in place.refused} <= {"git", "files"}  # git asks without a login first
    search = Search(
        needles=key_lines(Path(ssh_server[1]["OUR_KEY"]))
        | {each for secret in (PASSWORD, ROTATED) for each in encodings(secret.encode()) | json_forms(secret)},
        markers={
            "stdout": b'"verified"', "stderr": b"--secret id=netrc,src=/proc/", "log": b"=== ",
            "cache": b"private-lib", "image": b'name = "private-lib"', "inspect": b"io.gitlab.prebuilt.inputs",
            "history": b"builder: source: forked", "render": b"Rendered by builder",
        },
    )  # fmt: skip
    search.look("stdout", built.stdout)
    search.look("stderr", built.stderr)
    search.look_below("log", logs)
    search.look_below("cache", tmp_path / "cache")
    image = f"{scratch_repository}:3.13-slim"
    docker("save", "--output", str(tmp_path / "image.tar"), image)
    search.look("image", (tmp_path / "image.tar").read_bytes())
    search.look("inspect", docker("image", "inspect", image))
    search.look("history", docker("history", "--no-trunc", image))
    rendered = project.builder("render", "-o", str(tmp_path / "contexts"), env=login)
    assert rendered.returncode == 0, rendered.stderr
    search.look_below("render", tmp_path / "contexts")
    search.check()
    job = JOB.format(url=place.url.replace(host, NAME))  # pip does not trust a server without a name
    docker("run", "--rm", "--add-host", f"{NAME}:{host}", "--workdir", "/tmp", image, "sh", "-euxc", job)

    place.logins.clear()
    place.admit("gitlab-ci-token", ROTATED)
    again = project.builder("build", "--json", env={"CI_JOB_TOKEN": ROTATED})
    assert again.returncode == 0, again.stderr
    assert [cell["outcome"] for cell in json.loads(again.stdout)["cells"]] == ["up-to-date"]

    matrix = folder / "matrix.toml"
    matrix.write_text(matrix.read_text().replace(scratch_repository, f"{open_registry.host}/company/ci"))
    env = {**NO_ENGINE, "CI_JOB_TOKEN": ROTATED, "BUILDER_CACHE_DIR": str(tmp_path / "native")}
    native = project.builder("build", "--push", "--maker", "native", "--json", env=env)
    assert native.returncode == 0, native.stderr
    without_engine = Search(needles=search.needles, markers={"stdout": b'"pushed"', "cache": b"private-lib"})
    without_engine.look("stdout", native.stdout)
    without_engine.look_below("cache", tmp_path / "native")
    without_engine.check()
