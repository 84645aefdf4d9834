"""The reports that GitLab and GitHub show: valid by the formats' own schemas, whatever is in them."""

from __future__ import annotations

import io
import json
import re
import shlex
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest
import referencing
import xmlschema
from packageurl import PackageURL
from prometheus_client.openmetrics.parser import text_fd_to_metric_families

from builder.errors import BuildError, UsageError
from builder.gitlab.images import JobImage, dotenv, dotenv_warning
from builder.lock.preflight import preflight
from builder.lock.read import read_lock
from builder.matrix.file import parse_matrix
from builder.matrix.schema import Install
from builder.oci.reference import Digest, ImageRef
from builder.reports.code_quality import Problem, problems
from builder.reports.facts import CellFacts
from builder.reports.folder import ReportFolder
from builder.reports.github import commands
from builder.reports.junit import junit_xml
from builder.reports.metrics import metrics_text
from builder.reports.sbom import cyclonedx_json, package_url
from builder.reports.summary import escaped, summary_markdown
from builder.run import CellResult
from builder.verify.inside import Check
from tests import cells, locks
from tests.layers import chosen, rendered
from tests.matrices import EXAMPLE

SCHEMAS = Path(__file__).parents[1] / "schemas"
DIGEST = Digest(algorithm="sha256", hex="d1" * 32)
HOSTILE = "</td><script>alert(1)</script> | `x` ::error::x %0A \x1b[31m é"
GITLAB = {
    "CI_JOB_URL": "https://gitlab.example.com/acme/shop/-/jobs/7",
    "CI_PROJECT_URL": "https://gitlab.example.com/acme/shop",
    "CI_REGISTRY_IMAGE": "registry.example.com/acme",
}


def facts(*, python: str = "3.12", error: str = "", verdict: Any = "passed") -> CellFacts:
    """A cell that was pushed, or failed, with hostile texts in its evidence."""
    packages = [chosen("one"), chosen("two", "2.0+local"), replace(chosen("three"), version=None, artifact="vcs")]
    image = rendered(packages, cells.debian(python))
    checks = (
        Check(name="files", verdict=verdict, evidence=HOSTILE, seconds=1.5),
        Check(name="uv-pip", verdict="skipped", evidence="no lock", seconds=0),
    )
    result = CellResult(
        rendered=image, outcome="build-failed" if error else "pushed", seconds=12.5, checks=checks,
        error=BuildError(error) if error else None,
    )  # fmt: skip
    tag = image.moving_tags[0].with_digest(DIGEST)
    return CellFacts(
        result=result, image=None if error else tag, size=None if error else 5000, new_size=None if error else 70,
        changes=("package one: 0.9 → 1.0", f"package two: added {HOSTILE}"),
    )  # fmt: skip


def schema_of(name: str) -> Any:
    """A validator for one of the schemas beside these tests."""
    table = json.loads((SCHEMAS / name).read_text(encoding="utf-8"))
    return jsonschema.Draft202012Validator(table, format_checker=jsonschema.FormatChecker())


def test_junit_has_cells_and_checks() -> None:
    """Broken: GitLab rejects the test report, or shows a cell that failed as one that passed."""
    xml = junit_xml([facts(), facts(python="3.13", error=f"no {HOSTILE}"), facts(python="3.11", verdict="failed")])
    xmlschema.XMLSchema(str(SCHEMAS / "junit-4.xsd")).validate(io.BytesIO(xml))
    suites = ElementTree.fromstring(xml)  # noqa: S314 - written here
    assert suites.attrib["tests"] == "9"
    assert [(suite.attrib["name"], suite.attrib["failures"]) for suite in suites] == [
        ("3.12-bookworm-slim", "0"), ("3.13-bookworm-slim", "1"), ("3.11-bookworm-slim", "1"),
    ]  # fmt: skip
    failures = [
        (case.attrib["classname"], case.attrib["name"])
        for case in suites.iter("testcase")
        if case.find("failure") is not None
    ]
    assert failures == [("3.13-bookworm-slim", "build"), ("3.11-bookworm-slim", "files")]


def test_metrics_are_open_metrics() -> None:
    """Broken: GitLab or Prometheus cannot read the sizes and times."""
    text = metrics_text([facts(), facts(python="3.13", error="no")])
    found = {
        (sample.name, sample.labels["cell"]): sample.value
        for family in text_fd_to_metric_families(io.StringIO(text))  # type: ignore[no-untyped-call]
        for sample in family.samples
    }
    assert found == {
        ("prebuilt_image_bytes", "3.12-bookworm-slim"): 5000,
        ("prebuilt_image_new_bytes", "3.12-bookworm-slim"): 70,
        ("prebuilt_image_packages", "3.12-bookworm-slim"): 3,
        ("prebuilt_image_packages", "3.13-bookworm-slim"): 3,
        ("prebuilt_build_seconds", "3.12-bookworm-slim"): 12.5,
        ("prebuilt_build_seconds", "3.13-bookworm-slim"): 12.5,
    }
    # GitLab splits lines as a shell does, so that a space in a label would end the name.
    assert all(len(shlex.split(line)) == 2 for line in text.splitlines() if not line.startswith("#"))


@pytest.mark.parametrize("is_built", [True, False])
def test_bill_of_materials_is_valid(is_built: bool) -> None:
    """Broken: GitLab rejects the bill of materials, or its dependency list lacks packages."""
    each = facts()
    table = cyclonedx_json(each.rendered, each.image if is_built else None, "sub/uv.lock")
    folder = files("cyclonedx.schema._res")
    resources = [
        (
            name,
            referencing.Resource.from_contents(
                json.loads(
                    folder.joinpath(f"{name.removesuffix('.schema.json')}.SNAPSHOT.schema.json").read_text("utf-8")
                )
            ),
        )
        for name in ("bom-1.6.schema.json", "spdx.schema.json", "jsf-0.82.schema.json")
    ]
    base = "http://cyclonedx.org/schema/"
    registry: Any = referencing.Registry().with_resources([(base + name, resource) for name, resource in resources])
    schema = resources[0][1].contents
    jsonschema.Draft7Validator(schema, registry=registry, format_checker=jsonschema.FormatChecker()).validate(table)
    assert [(each["name"], each.get("version")) for each in table["components"]] == [
        ("one", "1.0"), ("two", "2.0+local"), ("three", None), ("uv", "0.13.8"),
        ("docker.io/library/python", "3.12-slim-bookworm"),
    ]  # fmt: skip
    assert table["components"][0]["hashes"] == [
        {"alg": "SHA-256", "content": locks.fake_hash("one-1.0-py3-none-any.whl")}
    ]
    for component in (*table["components"], table["metadata"]["component"]):
        assert PackageURL.from_string(component["purl"]).to_string() == component["purl"]
    properties = {each["name"]: each["value"] for each in table["metadata"]["properties"]}
    assert properties["gitlab:meta:schema_version"] == "1"
    assert properties["gitlab:dependency_scanning:input_file:path"] == "sub/uv.lock"
    assert table == cyclonedx_json(each.rendered, each.image if is_built else None, "sub/uv.lock")


@pytest.mark.parametrize(
    ("kind", "name", "version", "qualifiers"),
    [
        ("pypi", "six", "1.17.0", {}),
        ("pypi", "torch", "2.0+cpu", {}),
        ("pypi", "zip", "", {}),
        ("oci", "ci", str(DIGEST), {"repository_url": "registry.example.com:5000/acme/ci", "tag": "3.12-a b"}),
    ],
)
def test_package_urls(kind: str, name: str, version: str, qualifiers: dict[str, str]) -> None:
    """Broken: scanners take a package or image for another one."""
    found = package_url(kind, name, version, qualifiers)
    assert found == PackageURL(type=kind, name=name, version=version or None, qualifiers=qualifiers).to_string()


def test_code_quality_points_to_lines(tmp_path: Path) -> None:
    """Broken: a package without a wheel is shown at no line, at another package's, or once for every cell."""
    lock = locks.read(
        tmp_path, locks.pure("one"), locks.package("built", "2.0", with_sdist=True),
        locks.package("glibc-only", "1.0", "cp312-cp312-manylinux_2_28_x86_64"),
    )  # fmt: skip
    matrix = parse_matrix(EXAMPLE, source="matrix.toml")
    found = problems(preflight(dict.fromkeys(matrix.cells, lock)), lock.path, "sub/pylock.toml")
    lines = lock.path.read_text().splitlines()
    assert {(each.check, each.severity, lines[each.line - 1]) for each in found} == {
        ("no-wheel", "minor", 'name = "built"'), ("not-installable", "blocker", 'name = "glibc-only"'),
    }  # fmt: skip
    assert len([each for each in found if each.check == "no-wheel"]) == 1
    schema_of("code-quality.schema.json").validate([each.table for each in found])
    fingerprints = [each.table["fingerprint"] for each in found]
    assert len(set(fingerprints)) == len(fingerprints)
    assert fingerprints == [replace(each, line=9).table["fingerprint"] for each in found]


def test_lines_of_requirements(tmp_path: Path) -> None:
    """Broken: packages of a requirements file are not found in it."""
    path = tmp_path / "requirements.txt"
    hash_ = f"--hash=sha256:{'0' * 64}"
    path.write_text(f"# pins\nOne_Two[extra]==1.0 \\\n    {hash_}\nthree==2.0 {hash_}\n")
    from builder.reports.code_quality import _lines_of

    assert _lines_of(path) == {"one-two": 2, "three": 4}


def test_folder_has_every_report(tmp_path: Path) -> None:
    """Broken: a report that the component's jobs name is not written, or links lead nowhere."""
    lock = locks.read(tmp_path, locks.pure("one"))
    folder = ReportFolder(path=tmp_path / "prebuilt-reports", variables={**GITLAB, "CI_PROJECT_DIR": str(tmp_path)})
    problem = Problem(check="no-wheel", severity="minor", text="x", path="uv.lock", line=3)
    folder.write_problems([problem])
    folder.write_run([facts(), facts(python="3.13", error="no")], [problem], {"": lock})
    assert sorted(path.name for path in folder.path.iterdir()) == [
        "3.12-bookworm-slim.cdx.json", "3.13-bookworm-slim.cdx.json", "annotations.json",
        "gl-code-quality-report.json", "junit.xml", "metrics.txt", "summary.md",
    ]  # fmt: skip
    table = json.loads((folder.path / "annotations.json").read_text())
    schema_of("annotations.schema.json").validate(table)
    assert [each["external_link"]["url"] for each in table["Images"]] == [
        "https://gitlab.example.com/acme/shop/-/jobs/7/artifacts/file/prebuilt-reports/summary.md",
        "https://gitlab.example.com/acme/shop/container_registry?search[]=3.12-bookworm-slim",
    ]
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write"):
        ReportFolder(path=tmp_path / "file" / "x", variables={}).write_problems([])


def test_nothing_in_a_summary_is_markup() -> None:
    """Broken: evidence of an image, or an error, becomes markup on GitHub's page."""
    text = summary_markdown([facts(), facts(python="3.13", error=f"no {HOSTILE}\n# x")], [])
    lines = text.splitlines()
    assert not [line for line in lines if re.search(r"(?<!\\)[<`]", line) and not line.startswith("    ")]
    assert "\x1b" not in text.replace(f"    no {HOSTILE}", "")
    assert "\\<script\\>" in text
    rows = [line for line in lines if line.startswith("| 3.1")]
    assert [row.replace("\\|", "").count("|") for row in rows] == [9, 9]
    assert escaped("a|b\n# c") == "a\\|b \\# c"


def test_workflow_commands_are_one_line_each() -> None:
    """Broken: text of a package or an image becomes a command to GitHub."""
    problem = Problem(check="a,b:c", severity="major", text="one\n::set-env::x", path="uv.lock", line=3)
    assert list(commands([facts(), facts(error="first\nsecond 100%")], [problem])) == [
        "::error title=3.12-bookworm-slim::first%0Asecond 100%25",
        "::warning file=uv.lock,line=3,title=a%2Cb%3Ac::one%0A::set-env::x",
    ]


def test_dotenv_fits_gitlab() -> None:
    """Broken: a dotenv file that GitLab rejects fails the job only after everything was built."""
    tag = ImageRef.from_str(f"registry.example.com/{'group/' * 10}ci")

    def images(count: int) -> list[JobImage]:
        made = [cells.debian(f"3.{number}") for number in range(count)]
        return [JobImage(cell=cell, tag=tag.with_tag(cell.name), digest=DIGEST) for cell in made]

    fits = dotenv(images(20), "3.0-bookworm-slim", pin=True)
    assert len(fits.encode()) < 5120
    assert dotenv_warning(fits).startswith("21 variables, and GitLab takes 20 from a job")
    assert dotenv_warning(dotenv(images(19), "3.0-bookworm-slim", pin=True)) == ""
    with pytest.raises(UsageError, match="GitLab takes at most 5120"):
        dotenv(images(40), "3.0-bookworm-slim", pin=True)


def test_lock_of_a_folder_that_is_no_repository(tmp_path: Path) -> None:
    """Broken: the lock has no path where there is no repository."""
    from builder.reports.folder import shown_path

    lock = read_lock(locks.write(tmp_path, locks.pure("one")), Install())
    assert shown_path(lock.path) == "pylock.toml"
