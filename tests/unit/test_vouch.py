"""What the lock vouches for: the digests of wheels' files, whoever noted them, and the hashes that it lists."""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path

import pytest

from builder.layer.store import LayerStore
from builder.tree import tree_digest, wheel_id
from builder.verify.vouch import _tree_of_wheel, _Wheel, vouched_by_lock
from tests.locks import pure, read

FILES = {"one/__init__.py": b"x = 1\n", "one-1.0.dist-info/RECORD": b""}
SHA = "ab" * 32


def selection(sha256: str) -> str:
    """A selection of one wheel that has no URL."""
    wheel = f'name = "one-1.0-py3-none-any.whl", path = "one.whl", hashes = {{sha256 = "{sha256}"}}'
    return f'[[packages]]\nname = "one"\nversion = "1.0"\nwheels = [{{{wheel}}}]\n'


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("six-1.17.0.dist-info", "six-1.17.0"),
        ("six-1.17.0-py2.py3-none-any.whl", "six-1.17.0"),
        ("Types_Boto3.s3-1.0.POST1-1-py3-none-any.whl", "types-boto3-s3-1.0.post1"),
    ],
)
def test_wheel_id(name: str, expected: str) -> None:
    """Broken: a wheel in a cache and the same one in the lock are not told to be the same."""
    assert wheel_id(name) == expected


def test_tree_is_that_of_the_files() -> None:
    """Broken: a wheel has another digest than its files, or two sets of files have the same one."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as wheel:
        wheel.writestr("one/", b"")
        for name, content in reversed(FILES.items()):
            wheel.writestr(name, content)
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}
    assert _tree_of_wheel(_Wheel(), packed) == tree_digest(hashes)
    assert tree_digest({"a": SHA, "b": SHA}) != tree_digest({"a": SHA})
    assert tree_digest({"a": SHA}) != tree_digest({"b": SHA})


def test_noted_tree(tmp_path: Path) -> None:
    """Broken: what this machine noted when it made a layer is not used, or a damaged note is."""
    store = LayerStore(folder=tmp_path)
    store.add_tree(SHA, f"sha256:{SHA}")
    assert vouched_by_lock(selection(SHA), "x", None, store).trees == {"one-1.0": [f"sha256:{SHA}"]}
    store.add_tree(SHA, "sha256:short")
    assert vouched_by_lock(selection(SHA), "x", None, store).trees == {}


def test_hash_that_the_lock_does_not_have(tmp_path: Path) -> None:
    """Broken: an image with another wheel of the same name and version passes."""
    package = pure("one")
    lock = read(tmp_path, package)
    store = LayerStore(folder=tmp_path)
    assert vouched_by_lock(selection(package["wheels"][0]["hashes"]["sha256"]), "x", lock, store).faults == ()
    found = vouched_by_lock(selection(SHA), "x", lock, store)
    assert found.faults == ("pylock.toml does not have one-1.0-py3-none-any.whl",)
