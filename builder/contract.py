"""What several packages agree on and none may retype: paths in an image, labels, tags, secret ids, media types."""

from __future__ import annotations

from typing import Final

# Where an image has what it promises. The templates get these values; nothing else names the paths.
VENV: Final = "/opt/uv/venv"
CACHE: Final = "/opt/uv/cache"
SELECTION: Final = "/opt/uv/pylock.toml"

# Where a runner mounts a job's files, and what verification puts there.
BUILDS: Final = "/builds"
PROJECT: Final = "project"
PROBES: Final = "probes"

# Labels of an image. The key also ends the immutable tag, cut to this many hexadecimal digits.
LABELS: Final = "io.gitlab.prebuilt"
CELL_LABEL: Final = f"{LABELS}.cell"
KEY_LABEL: Final = f"{LABELS}.key"
INPUTS_LABEL: Final = f"{LABELS}.inputs"
JOURNAL_LABEL: Final = f"{LABELS}.journal"
KEY_LENGTH: Final = 12

# Labels of the containers and volumes that a verification makes, so that leftovers of a killed run can be found.
VERIFY_LABEL: Final = LABELS
VERIFIED_IMAGE_LABEL: Final = f"{LABELS}.image"

JOURNAL_TAG: Final = "builder-journal"
STEP_CACHE_TAG: Final = "builder-cache"

# Ids of the secrets that a build may mount: a CA bundle, and credentials of private indexes.
CA_SECRET: Final = "ca"  # noqa: S105 - a name
NETRC_SECRET: Final = "netrc"  # noqa: S105 - a name

# Media types of the OCI image specification, and Docker's older ones.
INDEX_TYPE: Final = "application/vnd.oci.image.index.v1+json"
MANIFEST_TYPE: Final = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE: Final = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE: Final = "application/vnd.oci.image.layer.v1.tar"
INDEX_TYPES: Final = (INDEX_TYPE, "application/vnd.docker.distribution.manifest.list.v2+json")
MANIFEST_TYPES: Final = (*INDEX_TYPES, MANIFEST_TYPE, "application/vnd.docker.distribution.manifest.v2+json")
