"""Constants that several packages share: paths in an image, labels, tags, secret ids, media types."""

from __future__ import annotations

from typing import Final

# Paths in an image. The templates take them from here, and so does the script that checks images.
VENV: Final = "/opt/uv/venv"
CACHE: Final = "/opt/uv/cache"
SELECTION: Final = "/opt/uv/pylock.toml"
UVX: Final = "/usr/local/bin/uvx"
STATUS: Final = "/usr/local/bin/prebuilt-status"
SYSTEM_PYTHON: Final = "/usr/local/lib/prebuilt/bin/python"  # what `uv pip install --system` finds
UV_PYTHONS: Final = "/usr/local/lib/prebuilt/python"  # where uv installs the Python of a base that has none
PYTHON_LINKS: Final = "/usr/local/bin"  # where that Python is on PATH
PATH_FIRST: Final = (f"{VENV}/bin", "/usr/local/lib/prebuilt/bin")  # what PATH begins with

# Where tools are that the matrix names, each in an environment of its own, and their programs; where uv looks for them.
TOOLS: Final = "/opt/uv/tools"
PROGRAMS: Final = "/opt/uv/bin"
TOOL_VARIABLES: Final = {"UV_TOOL_DIR": TOOLS, "UV_TOOL_BIN_DIR": PROGRAMS}

# The variables that an image sets, besides PATH. The matrix may choose another link mode.
LINK_MODES: Final = ("copy", "hardlink", "symlink", "clone")
VARIABLES: Final = {
    "UV_PROJECT_ENVIRONMENT": VENV,
    "UV_CACHE_DIR": CACHE,
    "UV_PYTHON": "python",
    "UV_PYTHON_DOWNLOADS": "never",
    "UV_LINK_MODE": LINK_MODES[0],
    "VIRTUAL_ENV": VENV,
}
# Where Debian and Alpine have the certificates that programs trust, and the variables of an image with a company's CA:
# uv and Python, pip, requests. git and curl read the bundle without being told.
CA_BUNDLE: Final = "/etc/ssl/certs/ca-certificates.crt"
CA_VARIABLES: Final = ("PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")
# Variables that would make Python or uv use other files than those of the image, or do work that is done.
FOREIGN_VARIABLES: Final = (
    "LD_AUDIT",
    "LD_PRELOAD",
    "PIP_PREFIX",
    "PIP_PYTHON",
    "PIP_ROOT",
    "PIP_TARGET",
    "PIP_USER",
    "PYTHONHOME",
    "PYTHONOPTIMIZE",
    "PYTHONPATH",
    "PYTHONPLATLIBDIR",
    "PYTHONPYCACHEPREFIX",
    "PYTHONSTARTUP",
    "UV_COMPILE_BYTECODE",
    "UV_CONFIG_FILE",
    "UV_MANAGED_PYTHON",
    "UV_NO_CACHE",
    "UV_NO_OFFLINE",
    "UV_PYTHON_PREFERENCE",
    "UV_PYTHON_SEARCH_PATH",
)

STDLIB: Final = "stdlib"  # the kind of the layer with the standard library's bytecode

# Where a runner mounts a job's files, and the folders that verification creates there.
BUILDS: Final = "/builds"
PROJECT: Final = "project"
PROBES: Final = "probes"

# Labels of an image. An immutable tag ends with this many hexadecimal digits of the key.
LABELS: Final = "io.gitlab.prebuilt"
CELL_LABEL: Final = f"{LABELS}.cell"
PYTHON_LABEL: Final = f"{LABELS}.python"  # of an image whose Python uv installed: cpython-3.13.2
KEY_LABEL: Final = f"{LABELS}.key"
INPUTS_LABEL: Final = f"{LABELS}.inputs"
TOOLS_LABEL: Final = f"{LABELS}.tools"  # as requirements: pre-commit==4.3.0 ruff==0.14.5
JOURNAL_LABEL: Final = f"{LABELS}.journal"
LEASE_LABEL: Final = f"{LABELS}.lease"
PUSHED_ANNOTATION: Final = f"{LABELS}.pushed"  # of a manifest: when it was pushed, ISO 8601
CHECKS_ANNOTATION: Final = f"{LABELS}.checks"  # of a manifest: the results with which the image was verified, as JSON
KEY_LENGTH: Final = 12
UNVERIFIED: Final = "unverified"  # what the tag of an image ends with that has not passed its checks yet

# Labels of the containers and volumes of a verification, by which the leftovers of a killed run can be found.
VERIFY_LABEL: Final = LABELS
VERIFIED_IMAGE_LABEL: Final = f"{LABELS}.image"

# Annotations of a layer in a manifest: its key (see `builder.layer.plan`), and the digest of its tar, uncompressed.
LAYER_KEY: Final = f"{LABELS}.layer"
LAYER_DIFF_ID: Final = f"{LABELS}.diff-id"
LAYER_TREES: Final = f"{LABELS}.trees"  # the digests of the wheels in it, as JSON
LAYERS_NAME: Final = "layers"  # the repository of layers, below that of the images

JOURNAL_TAG: Final = "builder-journal"
LEASE_TAG: Final = "builder-lease"
STEP_CACHE_TAG: Final = "builder-cache"

# Where a build mounts its secrets, and their ids: a CA bundle, and credentials of private indexes.
SECRETS: Final = "/run/secrets"
CA_SECRET: Final = "ca"  # noqa: S105 - a name
NETRC_SECRET: Final = "netrc"  # noqa: S105 - a name
SSH_KEY_SECRET: Final = "ssh_key"  # noqa: S105 - a name
KNOWN_HOSTS_SECRET: Final = "known_hosts"  # noqa: S105 - a name
BUILD_SECRETS: Final = (CA_SECRET, NETRC_SECRET, SSH_KEY_SECRET, KNOWN_HOSTS_SECRET)
UV_PYTHON_SECRET: Final = "uv_python"  # noqa: S105 - a name; a uv.toml that says where uv finds Pythons

# Media types of the OCI image specification (media-types.md), and Docker's older ones.
INDEX_TYPE: Final = "application/vnd.oci.image.index.v1+json"
MANIFEST_TYPE: Final = "application/vnd.oci.image.manifest.v1+json"
EMPTY_TYPE: Final = "application/vnd.oci.empty.v1+json"
LAYER_ARTIFACT: Final = "application/vnd.gitlab.prebuilt.layer"
CONFIG_TYPE: Final = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE: Final = "application/vnd.oci.image.layer.v1.tar"
INDEX_TYPES: Final = (INDEX_TYPE, "application/vnd.docker.distribution.manifest.list.v2+json")
MANIFEST_TYPES: Final = (*INDEX_TYPES, MANIFEST_TYPE, "application/vnd.docker.distribution.manifest.v2+json")
