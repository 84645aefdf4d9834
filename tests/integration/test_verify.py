"""`builder verify` finds each kind of damage to an image."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.conftest import Builder, Built, docker, left_behind, own_name

pytestmark = pytest.mark.integration

CELL = "3.13-bookworm-slim"


SITE = "/opt/uv/venv/lib/python3.13/site-packages"
# Changes six in the environment and in the cache, and what their RECORDs say of it.
FORGE = f"""
import base64, compileall, hashlib
from pathlib import Path
for module in [Path("{SITE}/six.py"), *Path("/opt/uv/cache/archive-v0").glob("*/six.py")]:
    module.write_text(module.read_text() + "import this\\n")
    hashed = base64.urlsafe_b64encode(hashlib.sha256(module.read_bytes()).digest()).rstrip(b"=").decode()
    (record,) = module.parent.glob("six-*.dist-info/RECORD")
    rows = [row for row in record.read_text().splitlines() if not row.startswith("six.py,")]
    record.write_text("\\n".join([*rows, f"six.py,sha256={{hashed}},{{module.stat().st_size}}", ""]))
compileall.compile_file("{SITE}/six.py", force=True, quiet=1)
"""
# Gives six the bytecode of another module, under a header that the interpreter accepts.
SWAP = f"""
from pathlib import Path
one = Path("{SITE}/__pycache__/six.cpython-313.pyc")
other = Path("{SITE}/idna/__pycache__/core.cpython-313.pyc")
one.write_bytes(one.read_bytes()[:16] + other.read_bytes()[16:])
"""


@dataclass(frozen=True)
class Damage:
    """Dockerfile lines that damage an image, the check that must fail, and what its evidence must say."""

    check: str
    lines: str
    evidence: tuple[str, ...] = ()


DAMAGES = {
    "a package is missing": Damage("sync-frozen", "RUN uv pip uninstall six"),
    "the cache is empty": Damage("second-environment", "RUN rm -rf /opt/uv/cache/archive-v0"),
    "UV_PYTHON is unset": Damage("python-version-file", 'ENV UV_PYTHON=""'),
    "uv pip goes elsewhere": Damage("uv-pip", "ENV UV_PYTHON=/usr/local/bin/python3"),
    "an environment that was activated does not count": Damage(
        "activated-environment", "ENV UV_PYTHON=/opt/uv/venv/bin/python", ("Location: /opt/uv/venv/",)),
    "UV_SYSTEM_PYTHON leads to the base's Python": Damage(
        "uv-pip", "RUN rm /usr/local/lib/prebuilt/bin/python", ("Package(s) not found",)),
    "a cache entry is missing": Damage("second-environment", "RUN find /opt/uv/cache/w* -path '*/six/*' -delete"),
    "a layer is another version's": Damage("installed-set", "RUN cd /opt/uv/venv/lib/python3.13/site-packages && "
                                           "mv six-*.dist-info six-0.9.dist-info && "
                                           "sed -i 's/^Version: .*/Version: 0.9/' six-0.9.dist-info/METADATA"),
    "a layer is missing": Damage("sync-frozen", "RUN rm -r /opt/uv/venv/lib/python3.13/site-packages/six*"),
    "bytecode is missing": Damage("bytecode", "RUN rm -r /opt/uv/venv/lib/python3*/site-packages/pandas/__pycache__"),
    "bytecode is stale": Damage("bytecode", "RUN echo '# changed' >> /opt/uv/venv/lib/python3.13/site-packages/six.py"),
    "the standard library lost its bytecode": Damage("bytecode", "RUN rm -r /usr/local/lib/python3.13/__pycache__"),
    "only root may write": Damage("any-user", "RUN chmod go-w /opt/uv/cache"),
    "a package too many": Damage("installed-set", "RUN cp -r /opt/uv/venv/lib/python3.13/site-packages/six-*.dist-info "
                                 "/opt/uv/venv/lib/python3.13/site-packages/stranger-1.dist-info && "
                                 "sed -i 's/^Name: .*/Name: stranger/' "
                                 "/opt/uv/venv/lib/python3.13/site-packages/stranger-1.dist-info/METADATA"),
    "the build backend is missing": Damage("project-offline", "RUN find /opt/uv/cache -ipath '*hatchling*' -delete"),
    "the index's answers are missing": Damage(
        "project-offline", "RUN rm -r /opt/uv/cache/simple-v*", ("Connection refused",)),
    "the CA was copied in": Damage("no-secrets", "COPY ca.pem /usr/local/share/ca-certificates/company.crt"),
    "the CA was copied in and deleted": Damage("no-secrets", "COPY ca.pem /tmp/ca.pem\nRUN rm /tmp/ca.pem"),
    "variables lead elsewhere": Damage(
        "contract", "ENV UV_PROJECT_ENVIRONMENT=/tmp/elsewhere UV_PYTHON_DOWNLOADS=automatic PYTHONPATH=/opt/shadow",
        ("UV_PROJECT_ENVIRONMENT is /tmp/elsewhere", "UV_PYTHON_DOWNLOADS is automatic", "PYTHONPATH is set: /opt/sh")),
    "modules were added": Damage(
        "files", f"RUN cd {SITE} && echo 'import os' | tee evil.pth sitecustomize.py six_.py",
        tuple(f"{SITE}/{name} is in no wheel" for name in ("evil.pth", "sitecustomize.py", "six_.py"))),
    "programs and links were added, one does not run": Damage(
        "files", f"RUN ln -s /srv {SITE}/linked && chmod a-x /opt/uv/venv/bin/pip && "
                 "ln -s /bin/true /usr/local/lib/prebuilt/bin/git",
        ("/usr/local/lib/prebuilt/bin/git belongs to nothing", f"{SITE}/linked is in no wheel",
         "/opt/uv/venv/bin/pip has the wrong mode")),
    "every start of Python runs something": Damage(
        "contract", "RUN echo pass > /usr/local/lib/python3.13/sitecustomize.py",
        ("python runs /usr/local/lib/python3.13/sitecustomize.py at each start",)),
    "a file was changed, another truncated": Damage(
        "files", f"RUN echo '# changed' >> {SITE}/six.py && truncate -s 100 /opt/uv/cache/archive-v0/*/idna/core.py",
        (f"{SITE}/six.py is not what uv installs", "idna/core.py is not the file of its wheel")),
    "a file was changed, and all RECORDs": Damage(
        "files", "COPY forge.py /tmp/\nRUN python /tmp/forge.py", ("six-1.17.0 has not the files of its wheel",)),
    "the selection was changed": Damage(
        "files", "RUN sed -i 's/sha256 = \"..../sha256 = \"0000/' /opt/uv/pylock.toml", ("uv.lock does not have ",)),
    "bytecode of another module": Damage(
        "bytecode", "COPY swap.py /tmp/\nRUN python /tmp/swap.py", ("was not made from", "six.py")),
    "a module only for root": Damage(
        "files", f"RUN chmod 600 {SITE}/six.py", (f"closed to other users: {SITE}/six.py",)),
    "pip is missing": Damage("installed-set", "RUN uv pip uninstall pip", ("pip is missing",)),
    "no command runs": Damage("contract", 'ENTRYPOINT ["/bin/false"]', ("ENTRYPOINT /bin/false runs no job",)),
    "uv was replaced, each command changed": Damage(
        "contract", "RUN printf '#!/bin/sh\\necho uv 1.0\\n' > /usr/local/bin/uv\n"
                    'ENTRYPOINT ["env", "UV_PYTHON=python3"]',
        ("uv --version says uv 1.0, not ", "UV_PYTHON is python3, not ")),
    "uv always succeeds": Damage("files", "RUN printf '#!/bin/sh\\n' > /usr/local/bin/uv",
                                 ("uv made no environment",)),
    "python was replaced": Damage(
        "contract", "RUN ln -sf /bin/true /opt/uv/venv/bin/python", ("python ran no check",)),
}  # fmt: skip


@pytest.mark.parametrize("what", DAMAGES)
def test_damage_is_noticed(
    built: Built, builder: Builder, tmp_path: Path, what: str, request: pytest.FixtureRequest
) -> None:
    """Broken: a damaged image passes the check for that damage."""
    damage = DAMAGES[what]
    image = f"damaged.example/{own_name(request)}:{damage.check}"
    (tmp_path / "ca.pem").write_bytes(built.shop.canary)
    (tmp_path / "forge.py").write_text(FORGE)
    (tmp_path / "swap.py").write_text(SWAP)
    (tmp_path / "Dockerfile").write_text(f"FROM {built.image(CELL)}\n{damage.lines}\n")
    subprocess.run(["docker", "build", "--quiet", "--tag", image, str(tmp_path)], check=True, capture_output=True)
    try:
        done = builder("verify", image, "--check", damage.check, "--json", cwd=built.shop.folder, env=built.shop.env)
    finally:
        docker("image", "rm", "--force", image)
    (check,) = json.loads(done.stdout)["checks"]
    assert check["verdict"] == "failed", check
    assert [words for words in damage.evidence if words not in check["evidence"]] == [], check
    assert done.returncode == 1
    assert damage.check in done.stderr


def test_verify_alone_without_a_project(built: Built, builder: Builder, tmp_path: Path) -> None:
    """Broken: an image cannot be verified without a checkout, or checks are skipped without saying so."""
    done = builder("verify", built.image("3.11-alpine"), "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    verdicts = {check["name"]: check["verdict"] for check in json.loads(done.stdout)["checks"]}
    assert [name for name, verdict in verdicts.items() if verdict == "skipped"] == ["project-offline"]
    assert len(verdicts) == 14
    assert left_behind(built.image("3.11-alpine")) == []


def test_foreign_image_is_refused(built: Built, builder: Builder) -> None:
    """Broken: an image of another tool gets nine failures instead of one clear error."""
    done = builder("verify", built.cells[0]["uv_image"], cwd=built.shop.folder)
    assert done.returncode in {1, 3}
    assert "Traceback" not in done.stderr


def test_unknown_image(builder: Builder, tmp_path: Path) -> None:
    """Broken: the error for a mistyped image does not name it."""
    done = builder("verify", "no-such-image:1", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (3, "")
    assert "no-such-image:1" in done.stderr
