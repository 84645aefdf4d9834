"""Versions of the matrix's tools, as an index has them; uv and the index are real, and on this machine."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from builder.errors import MatrixError, RegistryError
from builder.index_mirror import IndexMirrors
from builder.lock.tool import resolve_tools
from tests import cells, locks
from tests.integration.server import Answer, Request, serving

pytestmark = pytest.mark.integration


def wheel(name: str, version: str, *requires: str) -> bytes:
    """A wheel of metadata alone."""
    info = f"{name}-{version}.dist-info"
    metadata = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}", *(f"Requires-Dist: {e}" for e in requires)]
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(f"{info}/METADATA", "\n".join(metadata) + "\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\n")
        archive.writestr(f"{info}/RECORD", "")
    return packed.getvalue()


FILES: Mapping[str, bytes] = {
    "lint-1.0-py3-none-any.whl": wheel("lint", "1.0"),
    "lint-1.1-py3-none-any.whl": wheel("lint", "1.1", "helper"),
    "lint-2.0-py3-none-any.whl": wheel("lint", "2.0"),
    "helper-3.0-py3-none-any.whl": wheel("helper", "3.0"),
    "arm-1.0-cp312-cp312-manylinux_2_17_aarch64.whl": wheel("arm", "1.0"),
}


def answer(request: Request) -> Answer:
    """An index (PEP 503) at /simple, and its files beside it."""
    name = request.path.rstrip("/").rpartition("/")[2]
    if name in FILES:
        return Answer(body=FILES[name])
    links = [
        f'<a href="/files/{file}#sha256={hashlib.sha256(content).hexdigest()}">{file}</a>'
        for file, content in FILES.items()
        if file.startswith(f"{name}-")
    ]
    page = f"<!DOCTYPE html><html><body>{''.join(links)}</body></html>"
    return Answer(status=200 if links else 404, body=page.encode(), headers={"Content-Type": "text/html"})


def test_versions_of_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: a tool is not the newest that the requirement admits, or a fault is not named."""
    cell = cells.debian()
    with serving(answer, monkeypatch) as server:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        settings = '[tool.uv]\nindex-url = "https://index.example/simple"\n'
        (tmp_path / "pyproject.toml").write_text(settings)
        lock = locks.read(tmp_path)
        mirrors = IndexMirrors.from_mapping({"https://index.example": f"http://{server.host}"})
        tools = resolve_tools(["lint==1.*"], {cell: lock, replace(cell, python="3.13"): lock}, mirrors)[cell]
        (tool,) = tools
        assert (tool.pin, [package.filename for package in tool.packages]) == (
            "lint==1.1", ["lint-1.1-py3-none-any.whl", "helper-3.0-py3-none-any.whl"],
        )  # fmt: skip
        assert tool.packages[0].source["url"] == "https://index.example/files/lint-1.1-py3-none-any.whl"
        own = hashlib.sha256(FILES["lint-1.1-py3-none-any.whl"]).hexdigest()
        assert tool.packages[0].source["hashes"] == {"sha256": own}
        for requirement, said in {
            "lind": "lind was not found", "lint>2": "only lint<=2.0 is available", "arm": "platform tag",
        }.items():  # fmt: skip
            with pytest.raises(MatrixError) as error:
                resolve_tools([requirement], {cell: lock}, mirrors)
            assert f"tools: {requirement} cannot be installed in 3.12-bookworm-slim: " in error.value.what
            assert said in error.value.what
            assert "\n" not in error.value.what
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    with pytest.raises(RegistryError, match="the index cannot be asked for helper"):
        resolve_tools(["helper"], {cell: lock}, mirrors)
