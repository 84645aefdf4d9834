"""The layers of an image: what is in them and in which order, and what makes a layer another one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.errors import UsageError
from builder.index_mirror import IndexMirrors
from builder.layer.plan import Layer, LayerPlan, ordered, room_above, steps_for
from builder.lock.model import BuildSystem, SelectedPackage, Tool
from builder.oci.reference import Digest, ImageRef
from tests import locks
from tests.cells import alpine, debian
from tests.layers import UV_DIGEST, built, chosen, layers_of

MANYLINUX = "cp312-cp312-manylinux_2_17_x86_64"
OTHER = Digest(algorithm="sha256", hex="0" * 64)
SYSTEM = BuildSystem(requires=("hatchling",), backend="hatchling.build", constraints=())

# A name, whether its wheel is for any platform, and a size; few are large enough for a layer of their own.
PACKAGES = st.dictionaries(
    st.from_regex("[a-z][a-z0-9]{0,8}", fullmatch=True),
    st.tuples(st.booleans(), st.one_of(st.integers(1, 300_000), st.integers(600_000, 200_000_000))),
    min_size=1,
    max_size=40,
)


def wheels(sizes: Mapping[str, tuple[bool, int]]) -> list[SelectedPackage]:
    """The packages of a generated set."""
    return [
        chosen(name, tag="py3-none-any" if portable else MANYLINUX, size=size)
        for name, (portable, size) in sorted(sizes.items())
    ]


def keys(plan: LayerPlan, *kinds: str) -> list[str]:
    """The keys of the plan's layers, or of those of these kinds."""
    return [layer.key for layer in plan.layers if not kinds or layer.kind in kinds]


def different(old: Sequence[str], new: Sequence[str]) -> tuple[int, int]:
    """How many keys are only in the old list, and how many only in the new one."""
    return len(set(old) - set(new)), len(set(new) - set(old))


@given(sizes=PACKAGES, data=st.data())
@settings(deadline=None)
def test_bump_changes_one_layer(sizes: dict[str, tuple[bool, int]], data: st.DataObject) -> None:
    """Broken: a new version of one package makes more than one layer."""
    before = wheels(sizes)
    name = data.draw(st.sampled_from(sorted(sizes)))
    after = [
        replace(chosen(name, "2.0", each.filename[len(name) + 5 : -4]), size=each.size) if each.name == name else each
        for each in before
    ]
    known = {each.name: size for each in before if (size := each.size)}
    old, new = layers_of(before, sizes=known), layers_of(after, sizes=known)
    assert different(keys(old), keys(new)) == (1, 1)


@given(sizes=PACKAGES, data=st.data())
@settings(deadline=None)
def test_package_that_comes_or_goes_changes_one_layer(sizes: dict[str, tuple[bool, int]], data: st.DataObject) -> None:
    """Broken: a package that is added or removed makes more than one layer."""
    every = wheels(sizes)
    name = data.draw(st.sampled_from(sorted(sizes)))
    more, less = layers_of(every), layers_of([each for each in every if each.name != name])
    gone, made = different(keys(less), keys(more))
    assert (gone, made) in {(1, 1), (0, 1)}
    gone, made = different(keys(more), keys(less))
    assert (gone, made) in {(1, 1), (1, 0)}


@given(sizes=PACKAGES)
@settings(deadline=None)
def test_every_package_is_in_one_layer(sizes: dict[str, tuple[bool, int]]) -> None:
    """Broken: a package is in no layer, or in two."""
    plan = layers_of(wheels(sizes))
    names = [package.name for layer in plan.dependencies for package in layer.packages]
    assert sorted(names) == sorted(sizes)


@given(sizes=PACKAGES)
@settings(deadline=None)
def test_largest_first(sizes: dict[str, tuple[bool, int]]) -> None:
    """Broken: a change of a small package makes clients unpack large ones again."""
    plan = layers_of(wheels(sizes))
    single = [sizes[layer.packages[0].name][1] for layer in plan.dependencies if large(layer, sizes)]
    assert [size.bit_length() for size in single] == sorted((size.bit_length() for size in single), reverse=True)
    is_large = [large(layer, sizes) for layer in plan.dependencies]
    assert is_large == sorted(is_large, reverse=True)


def large(layer: Layer, sizes: Mapping[str, tuple[bool, int]]) -> bool:
    """Whether one of a layer's packages is large."""
    return any(sizes[package.name][1] >= 512 * 1024 for package in layer.packages)


def test_package_that_grows_a_little_keeps_its_place() -> None:
    """Broken: each bump of a large package makes clients unpack others again, because their order changes."""
    sizes = {"numpy": 17_000_000, "pandas": 19_000_000, "ruff": 20_000_000}
    packages = [chosen(name) for name in sizes]
    names = [[each.name for each in layer.packages] for layer in layers_of(packages, sizes=sizes).dependencies]
    grown = layers_of(packages, sizes={**sizes, "numpy": 25_000_000})
    assert [[each.name for each in layer.packages] for layer in grown.dependencies] == names


@given(sizes=PACKAGES, data=st.data())
@settings(deadline=None)
def test_layers_keep_their_places(sizes: dict[str, tuple[bool, int]], data: st.DataObject) -> None:
    """Broken: after a change clients unpack layers again that they have, or a layer is lost from the order."""
    every = wheels(sizes)
    name = data.draw(st.sampled_from(sorted(sizes)))
    old = layers_of([each for each in every if each.name != name])
    last = data.draw(st.permutations([layer.key for layer in old.dependencies]))
    new = layers_of(every)
    keys_in_order = keys(ordered(new, last))
    assert sorted(keys_in_order) == sorted(keys(new))
    foundation = [layer.key for layer in new.layers if not layer.packages]
    kept = [key for key in last if key in keys(new)]
    assert keys_in_order[:-1] == [*foundation, *kept]
    assert ordered(new, ()) == new


@pytest.mark.parametrize("most", [10, 20, 50, 100, 120])
@pytest.mark.parametrize("size", [1000, 5_000_000, None])
@pytest.mark.parametrize("count", [0, 1, 400])
def test_never_too_many_layers(most: int, size: int | None, count: int) -> None:
    """Broken: an image has more layers than asked for, or than engines take."""
    packages = [chosen(f"p{n}", tag=MANYLINUX if n % 2 else "py3-none-any", size=size) for n in range(count)]
    plan = layers_of(packages, debian(packages=("git",)), most=most, build_systems=(SYSTEM,))
    assert len(plan.layers) <= most
    assert sum(len(layer.packages) for layer in plan.layers) == count


@pytest.mark.parametrize("most", [10, 100, 120])
@pytest.mark.parametrize("count", [3, 30, 400])
def test_never_too_many_layers_of_source_distributions(most: int, count: int) -> None:
    """Broken: a lock with many source distributions gives an image that no engine takes."""
    packages = [*(built(f"s{n}") for n in range(count)), *(chosen(f"w{n}") for n in range(20))]
    plan = layers_of(packages, debian(packages=("git",)), most=most, build_systems=(SYSTEM,))
    assert len(plan.layers) <= most
    assert sum(len(layer.packages) for layer in plan.layers) == len(packages)


@pytest.mark.parametrize("base_layers", [1, 4, 30, 80])
@pytest.mark.parametrize("most", [10, 100, 120])
def test_base_with_many_layers(base_layers: int, most: int) -> None:
    """Broken: an image on a base with many layers has more than engines take, or more than max-layers above them."""
    packages = [chosen(f"p{n}", size=5_000_000) for n in range(400)]
    above = len(layers_of(packages, most=room_above(base_layers, most)).layers) + 1  # the notes
    assert above <= most
    assert base_layers + above <= 127


def test_foundation_comes_first() -> None:
    """Broken: packages are unpacked below the environment that they are in."""
    plan = layers_of([built("own"), chosen("one")], debian(packages=("git",)), build_systems=(SYSTEM,))
    kinds = ["system", "uv", "stdlib", "environment", "build-systems", "source", "wheels"]
    assert [layer.kind for layer in plan.layers] == kinds
    assert [layer.kind for layer in layers_of([]).layers] == ["uv", "stdlib", "environment"]


def tool(version: str = "1.0", requirement: str = "lint") -> Tool:
    """A tool of two packages."""
    return Tool(requirement=requirement, packages=(chosen("lint", version), chosen("helper")))


# What an image consists of, and the kinds of layers that a change makes again.
EVERYTHING: dict[str, Any] = {
    "cell": debian(packages=("git",)),
    "build_systems": (SYSTEM,),
    "ca": b"pem",
    "tools": (tool(),),
}
MIXED = (built("own"), chosen("fast", tag=MANYLINUX), chosen("small"))
OF_BASE = ("system", "ca", "stdlib", "environment", "build-systems", "source", "tool")
CHANGES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "base digest": ({"base": debian().image.with_digest(OTHER)}, OF_BASE),
    "system packages": ({"cell": debian(packages=("git", "make"))}, ("system", "ca", "build-systems", "source")),
    "build packages": ({"cell": debian(packages=("git",), build_packages=("gcc",))}, ("source",)),
    "CA": ({"ca": b"other"}, ("ca",)),
    "refresh": ({"refresh_period": "2026-W47"}, ("system", "ca", "build-systems", "source")),
    "a tool's wheel": ({"tools": (tool("2.0"),)}, ("tool",)),
    "a tool's requirement": ({"tools": (tool(requirement="lint>=1"),)}, ("tool",)),
    "interpreter": ({"interpreter": "3.12.5"}, ("wheels", "wheels")),
    "uv digest": ({"uv": ImageRef.from_str("ghcr.io/astral-sh/uv:0.13.8").with_digest(OTHER)}, ("uv",)),
    "uv version": (
        {"uv": ImageRef.from_str("ghcr.io/astral-sh/uv:0.13.9").with_digest(UV_DIGEST)},
        ("environment", "build-systems", "source", "tool", "wheels", "wheels"),
    ),
    "build system": ({"build_systems": (replace(SYSTEM, requires=("flit_core",)),)}, ("build-systems",)),
    "index settings": ({"uv_settings": {"index": []}}, ()),
    "named index": ({"uv_settings": {"index": [{"url": "https://i.example"}]}}, ("build-systems", "source")),
    "build settings": (
        {"uv_settings": {"config-settings-package": {"own": {"debug": True}}}}, ("build-systems", "source")
    ),
    "build settings of others": (
        {"uv_settings": {"config-settings-package": {"other": {"debug": True}}}}, ("build-systems",)
    ),
    "link mode": ({"link_mode": "symlink"}, ("tool",)),
    "repository": ({"repository": ImageRef.from_str("other.example/ci")}, ()),
    "branch": ({"branch": "fix-1"}, ()),
}  # fmt: skip


@pytest.mark.parametrize("what", CHANGES)
def test_what_is_in_which_key(what: str) -> None:
    """Broken: a layer is used although something that decides its files changed, or made again for nothing."""
    change, expected = CHANGES[what]
    before = layers_of(MIXED, **EVERYTHING)
    after = layers_of(MIXED, **{**EVERYTHING, **change})
    made = tuple(new.kind for old, new in zip(before.layers, after.layers, strict=True) if old.key != new.key)
    if what == "index settings":  # an empty list of indexes is a setting too
        assert set(made) <= {"build-systems", "source"}
    else:
        assert made == expected


def test_compression_is_in_every_key() -> None:
    """Broken: an image that asks for zstd gets layers in gzip."""
    gzip, zstd = layers_of(MIXED, **EVERYTHING), layers_of(MIXED, compression="zstd", **EVERYTHING)
    assert not set(keys(gzip)) & set(keys(zstd))


def test_portable_wheels_are_shared_by_all_platforms() -> None:
    """Broken: a layer of pure Python is made and stored once for each libc and architecture."""
    packages = [chosen("small"), chosen("other", size=2_000_000)]
    shared = keys(layers_of(packages), "wheels")
    assert keys(layers_of(packages, alpine()), "wheels") == shared
    assert keys(layers_of(packages, debian(architecture="arm64")), "wheels") == shared
    assert keys(layers_of(packages, debian("3.13")), "wheels") == shared  # the interpreter tells them apart


def test_other_wheels_are_not_shared_by_platforms() -> None:
    """Broken: an image gets a layer that was made for another libc or architecture."""
    packages = [chosen("fast", tag=MANYLINUX)]
    found = [
        keys(layers_of(packages, cell), "wheels")[0]
        for cell in (debian(), alpine(), debian(architecture="arm64"), debian(libc="2.41"))
    ]
    assert len(set(found[:3])) == 3
    assert found[3] == found[0]  # a wheel that fits both releases is the same in both


def test_portable_wheels_have_layers_of_their_own() -> None:
    """Broken: one wheel for a platform keeps the portable ones beside it from being shared."""
    plan = layers_of([chosen(f"p{n}", tag=MANYLINUX if n % 2 else "py3-none-any") for n in range(60)])
    for layer in plan.dependencies:
        assert len({package.filename.endswith("-any.whl") for package in layer.packages}) == 1


@pytest.mark.parametrize(("name", "value"), [("size", 999), ("upload-time", "2026-11-20T10:00:00Z")])
def test_what_the_lock_says_besides_is_in_no_key(name: str, value: Any) -> None:
    """Broken: the same wheel gives two layers, because one lock says more about it than the other."""
    plain, told = chosen("small"), replace(chosen("small"), source={**chosen("small").source, name: value})
    sizes = {"small": 1000}
    assert keys(layers_of([plain], sizes=sizes)) == keys(layers_of([told], sizes=sizes))


@pytest.mark.parametrize(
    "other",
    [
        chosen("small", hashes={"sha256": "0" * 64}),
        chosen("small", url="https://mirror.example/small-1.0-py3-none-any.whl"),
        replace(chosen("small"), index="https://mirror.example/simple"),
        replace(chosen("small"), version="1.0.0"),
    ],
    ids=["hash", "url", "index", "version"],
)
def test_artifact_is_in_its_key(other: SelectedPackage) -> None:
    """Broken: another wheel under the same name is taken for the one that the lock asks for."""
    assert keys(layers_of([chosen("small")]), "wheels") != keys(layers_of([other]), "wheels")


def test_toolchain_is_only_there_for_sources() -> None:
    """Broken: a compiler is in a layer of the image, or is installed although nothing is built with it."""
    plan = layers_of(MIXED, debian(packages=("git",), build_packages=("gcc", "libc6-dev")))
    steps = steps_for(plan, plan.layers)
    titles = [step.title for step, _ in steps]
    assert titles.index("install 2 packages to build with") == titles.index("build own from source") - 1
    # What a step with all of / as its scope adds to / is in its layer.
    assert all(step.scope == "/opt/uv" for step, layers in steps[titles.index("build own from source") :] if layers)
    assert [layers for step, layers in steps if "build with" in step.title] == [()]
    others = [layer for layer in plan.layers if layer.kind != "source"]
    assert "gcc" not in "".join(step.script for step, _ in steps_for(plan, others))


def test_mirrors_of_indexes() -> None:
    """Broken: files are fetched past the mirror, or the mirror changes keys, or where the cache has the files."""
    plan = layers_of([built("own"), chosen("small"), replace(chosen("url"), index=None)])
    mirrors = IndexMirrors.from_mapping({locks.FILES: "https://m.example/f/", locks.INDEX: "https://m.example/s"})
    texts = [content.decode() for step, _ in steps_for(plan, plan.layers, mirrors) for content in step.files.values()]
    whole = "\n".join(texts)
    assert "https://m.example/f/small-1.0-py3-none-any.whl" in whole
    assert "https://m.example/f/own-1.0.tar.gz" in whole
    assert f"{locks.FILES}/url-1.0-py3-none-any.whl" in whole  # which the cache has by its address
    assert whole.count(locks.FILES) == 2  # also in its own file
    assert set(re.findall('index = "(.*)"', whole)) == {locks.INDEX}


def test_builds_that_are_only_cached_ask_the_mirrors() -> None:
    """Broken: what the build of a package of `cache-groups` needs is fetched past the mirror."""
    settings = {"index": [{"url": locks.INDEX, "default": True}]}
    plan = layers_of([chosen("small")], cached=((built("own"),),), uv_settings=settings)
    mirrors = IndexMirrors.from_mapping({locks.INDEX: "https://m.example/s"})
    steps = [step for step, _ in steps_for(plan, plan.layers, mirrors) if step.title == "cache 1 package"]
    (written,) = [content.decode() for step in steps for name, content in step.files.items() if "uv.toml" in name]
    assert 'url = "https://m.example/s"' in written
    assert locks.INDEX not in written


def test_tool_is_fetched_from_the_mirror() -> None:
    """Broken: the files of a tool are fetched past the mirror, or the mirror changes its key."""
    plan = layers_of([], tools=(tool(),))
    mirrors = IndexMirrors.from_mapping({locks.FILES: "https://m.example/f"})
    (step,) = [step for step, layers in steps_for(plan, plan.layers, mirrors) if layers[0].kind == "tool"]
    text = step.files[step.requirements].decode()
    assert text.count("https://m.example/f/") == 2
    assert locks.FILES not in text
    assert mirrors.named("https://m.example/f/lint.whl") == f"{locks.FILES}/lint.whl"


def test_where_mirrors_are() -> None:
    """Broken: a mirror answers for other addresses, or a more exact one is not used."""
    table = {"https://a.example/": "https://m.example/a", "https://a.example/x": "http://n.example:8080/"}
    mirrors = IndexMirrors.from_mapping(table)
    assert mirrors.locate("https://a.example/y/z.whl") == "https://m.example/a/y/z.whl"
    assert mirrors.locate("https://a.example/x/z.whl") == "http://n.example:8080/z.whl"
    assert mirrors.locate("https://a.example.org/z.whl") == "https://a.example.org/z.whl"
    assert mirrors.locate("https://a.example/xy") == "https://m.example/a/xy"
    for wrong in ("m.example", "ftp://m.example", "https://jane:hunter2@m.example", "https://m.example/?token=hunter2"):
        with pytest.raises(UsageError) as error:
            IndexMirrors.from_mapping({"https://a.example": wrong})
        assert "hunter2" not in str(error.value)


def test_steps_make_only_what_is_missing() -> None:
    """Broken: a bump of one package installs others too."""
    plan = layers_of([*MIXED, chosen("large", size=9_000_000)], **EVERYTHING)
    missing = [layer for layer in plan.layers if layer.kind in {"uv", "stdlib", "source"}]
    missing += [layer for layer in plan.layers if [each.name for each in layer.packages] == ["large"]]
    steps = steps_for(plan, missing)
    assert [step.title for step, _ in steps] == [
        "compile the standard library", "build own from source", "install 1 package",
    ]  # fmt: skip
    assert [layer for _, made in steps for layer in made] == [layer for layer in missing if layer.kind != "uv"]
