"""What the lock vouches for: the digests of wheels' files, whoever noted them, and the hashes that it lists."""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path

import pytest

from builder.errors import VerifyError
from builder.layer.store import LayerStore
from builder.tree import tree_digest, wheel_id
from builder.verify.vouch import _Artifact, _tree_of_wheel, vouched_by_lock
from tests.locks import fake_hash, package, pure, read

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
    assert _tree_of_wheel(_Artifact(), packed) == tree_digest(hashes)
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
    listing = pure("one")
    lock = read(tmp_path, listing)
    store = LayerStore(folder=tmp_path)
    listed = listing["wheels"][0]["hashes"]["sha256"]
    store.add_tree(listed, f"sha256:{SHA}")
    assert vouched_by_lock(selection(listed), "x", lock, store).faults == ()
    found = vouched_by_lock(selection(SHA), "x", lock, store)
    assert found.faults == ("pylock.toml does not have one-1.0-py3-none-any.whl",)


WHEEL, SDIST = "one-1.0-py3-none-any.whl", "one-1.0.tar.gz"
OTHER = "two-1.0-py3-none-any.whl"
FORGED = {
    "a wheel by another name": f'wheels = [{{name = "{OTHER}", hashes = {{sha256 = "{fake_hash(WHEEL)}"}}}}]',
    "a wheel of another package": f'wheels = [{{name = "{WHEEL}", hashes = {{sha256 = "{fake_hash(OTHER)}"}}}}]',
    "an archive": f'archive = {{name = "{WHEEL}", hashes = {{sha256 = "{SHA}"}}}}',
    "an sdist": f'sdist = {{name = "{SDIST}", hashes = {{sha256 = "{fake_hash(SDIST)}"}}}}',
    "a commit": 'vcs = {type = "git", url = "https://git.invalid", commit-id = "1234"}',
    "a wheel without a hash": f'wheels = [{{name = "{WHEEL}"}}]',
    "nothing": "",
}


@pytest.mark.parametrize("what", FORGED)
def test_recorded_selection_is_not_believed(tmp_path: Path, what: str) -> None:
    """Broken: an image escapes the comparison with the lock's wheels by what it says that it was made from."""
    lock = read(tmp_path, pure("one", with_sdist=True), pure("two"))
    store = LayerStore(folder=tmp_path)
    store.add_tree(fake_hash(WHEEL), f"sha256:{SHA}")
    found = vouched_by_lock(f'[[packages]]\nname = "one"\nversion = "1.0"\n{FORGED[what]}\n', "x", lock, store)
    assert found.faults or found.trees == {"one-1.0": [f"sha256:{SHA}"]}
    assert bool(found.faults) is (what != "a wheel by another name")


def test_wheel_of_another_name_without_a_lock(tmp_path: Path) -> None:
    """Broken: without a project, an image escapes the comparison by naming a wheel of another package."""
    forged = (
        f'[[packages]]\nname = "one"\nversion = "1.0"\nwheels = [{{name = "{OTHER}", hashes = {{sha256 = "{SHA}"}}}}]'
    )
    assert vouched_by_lock(forged, "x", None, LayerStore(folder=tmp_path)).faults == (f"one is not what {OTHER} has",)


def test_what_is_built_from_source(tmp_path: Path) -> None:
    """Broken: an image with a package that no wheel fits, or that comes from git, fails."""
    vcs = {"type": "git", "url": "https://git.invalid/two", "commit-id": "1" * 40}
    lock = read(
        tmp_path, package("one", "1.0", "cp39-cp39-manylinux_2_17_x86_64", with_sdist=True),
        {"name": "two", "version": "1.0", "vcs": vcs},
    )  # fmt: skip
    recorded = f'''
[[packages]]
name = "one"
version = "1.0"
sdist = {{name = "{SDIST}", hashes = {{sha256 = "{fake_hash(SDIST)}"}}}}
[[packages]]
name = "two"
version = "1.0"
vcs = {{type = "git", url = "https://git.invalid/two", commit-id = "{"1" * 40}"}}
'''
    found = vouched_by_lock(recorded, "x", lock, LayerStore(folder=tmp_path))
    assert (found.faults, found.sources) == ((), ("one", "two"))


def test_recorded_hash_that_is_a_path(tmp_path: Path) -> None:
    """Broken: an image names a file of this machine in place of a hash."""
    with pytest.raises(VerifyError, match="is malformed"):
        vouched_by_lock(selection("../../.bashrc"), "x", None, LayerStore(folder=tmp_path))
