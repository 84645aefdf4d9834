"""Image references, digests and mirrors: Docker's grammar, and errors that name the wrong part."""

from __future__ import annotations

import pytest

from builder.errors import UsageError
from builder.oci.reference import Digest, ImageRef, Mirrors

HEX = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("python", "docker.io/library/python"),
        ("python:3.12", "docker.io/library/python:3.12"),
        ("docker.io/python:3.12", "docker.io/library/python:3.12"),
        ("index.docker.io/python", "docker.io/library/python"),
        ("index.docker.io/acme/app", "docker.io/acme/app"),
        ("acme/app", "docker.io/acme/app"),
        ("localhost/app", "localhost/app"),
        ("localhost:5000/app:1", "localhost:5000/app:1"),
        ("[::1]:5000/app", "[::1]:5000/app"),
        ("registry.example.com/a/b/c:t.a-g_1", "registry.example.com/a/b/c:t.a-g_1"),
        (f"ghcr.io/acme/uv:0.13.8@sha256:{HEX}", f"ghcr.io/acme/uv:0.13.8@sha256:{HEX}"),
        (f"python@sha512:{HEX}{HEX}", f"docker.io/library/python@sha512:{HEX}{HEX}"),
    ],
)
def test_reference_is_read_as_docker_reads_it(text: str, whole: str) -> None:
    """Broken: builder pulls an image other than the one in the matrix."""
    assert str(ImageRef.from_str(text)) == whole


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "is not a repository"),
        ("python:", "'' is not a tag"),
        ("python:-1", "'-1' is not a tag"),
        ("python:" + "x" * 129, "is not a tag"),
        ("Acme/App", "'Acme/App' is not a repository"),
        ("acme//app", "'acme//app' is not a repository"),
        ("acme/app\n", "is not a repository"),
        ("acme/app:1\n", "is not a tag"),
        ("acme/$(id)", "variables are not expanded here"),
        ("$CI_REGISTRY_IMAGE/ci", "variables are not expanded here"),
        ("acme/'app'", "is not a repository"),
        ("https://registry.example.com/app", "is not a registry"),
        ("exa_mple.com/app", "'exa_mple.com' is not a registry"),
        ("a/" * 130 + "a", "is not a repository"),
        ("python@sha256:abc", "'sha256:abc' is not a digest"),
        (f"python@sha256:{HEX.upper()}", "is not a digest"),
    ],
)
def test_wrong_reference_says_which_part(text: str, part: str) -> None:
    """Broken: builder accepts an invalid reference, or the error does not say what is wrong with it."""
    with pytest.raises(UsageError) as raised:
        ImageRef.from_str(text)
    assert part in raised.value.what


@pytest.mark.parametrize(
    ("text", "familiar"),
    [
        ("docker.io/library/python:3.12", "python:3.12"),
        ("docker.io/acme/app", "acme/app"),
        ("registry.example.com/library/app", "registry.example.com/library/app"),
    ],
)
def test_familiar_name_is_the_one_people_write(text: str, familiar: str) -> None:
    """Broken: builder prints names in another form than users write them."""
    assert ImageRef.from_str(text).familiar == familiar
    assert ImageRef.from_str(familiar) == ImageRef.from_str(text)


def test_tag_and_digest_are_put_and_taken() -> None:
    """Broken: a reference with another tag keeps the old digest, or a pinned one loses its tag."""
    ref = ImageRef.from_str("registry.example.com/app:1")
    pinned = ref.with_digest(Digest.from_str(f"sha256:{HEX}"))
    assert str(pinned) == f"registry.example.com/app:1@sha256:{HEX}"
    assert str(pinned.without_tag()) == f"registry.example.com/app@sha256:{HEX}"
    assert str(pinned.with_tag("2")) == "registry.example.com/app:2"


@pytest.mark.parametrize(
    ("mirrors", "located"),
    [
        (["docker.io=localhost:5000"], "localhost:5000/library/python:3.12"),
        (["docker.io=gitlab.example.com/acme/proxy"], "gitlab.example.com/acme/proxy/library/python:3.12"),
        (["docker.io=one.example", "docker.io/library=two.example/hub"], "two.example/hub/python:3.12"),
        (["docker.io/lib=one.example"], "docker.io/library/python:3.12"),
        (["ghcr.io=one.example, docker.io=two.example"], "two.example/library/python:3.12"),
        (["", " , "], "docker.io/library/python:3.12"),
        ([], "docker.io/library/python:3.12"),
    ],
)
def test_mirror_of_the_longest_name_stands_in(mirrors: list[str], located: str) -> None:
    """Broken: builder fetches an image from the wrong registry."""
    assert str(Mirrors.from_strs(mirrors).locate(ImageRef.from_str("python:3.12"))) == located


def test_mirror_keeps_the_digest() -> None:
    """Broken: a mirror can provide an image other than the pinned one."""
    ref = ImageRef.from_str(f"ghcr.io/acme/uv:1@sha256:{HEX}")
    assert Mirrors.from_strs(["ghcr.io=localhost:5000"]).locate(ref).digest == ref.digest


def test_mirror_said_later_goes_before() -> None:
    """Broken: --mirror does not override the matrix, or removes its other mirrors."""
    written = Mirrors.from_strs(["docker.io=b.example,ghcr.io=c.example"])
    both = Mirrors.from_strs(["docker.io=a.example"]).over(written)
    assert str(both.locate(ImageRef.from_str("acme/app"))) == "a.example/acme/app"
    assert str(both.locate(ImageRef.from_str("ghcr.io/acme/app"))) == "c.example/acme/app"


@pytest.mark.parametrize(
    "text",
    [
        "docker.io",
        "=mirror.example.com",
        "docker.io=",
        "docker.io=https://mirror.example.com",
        "docker.io=mirror.example.com/",
        "docker.io=mirror",
        "docker.io=a b",
        "$(id)=mirror.example.com",
    ],
)
def test_wrong_mirror_is_refused_with_an_example(text: str) -> None:
    """Broken: builder accepts a mistyped mirror, and fails only when it uses it."""
    with pytest.raises(UsageError) as raised:
        Mirrors.from_strs([text])
    assert "docker.io=mirror.example.com" in raised.value.hint
