# The image for the GitLab component's jobs: the command line tool, and docker, buildx and git, which it calls.
#   make image
FROM docker.io/library/python:3.13-slim-trixie

# System packages are not pinned: their versions follow the base image's release, and security updates are wanted.
# hadolint ignore=DL3008
RUN --mount=type=secret,id=ca <<'EOF'
set -eu
export DEBIAN_FRONTEND=noninteractive
if [ -s /run/secrets/ca ]; then set -- -o Acquire::https::CAInfo=/run/secrets/ca; fi
apt-get "$@" update
apt-get "$@" install -y --no-install-recommends docker-buildx docker-cli git
rm -rf /var/lib/apt/lists/*
EOF

# Install the wheel and only its own dependencies, with the versions and hashes that the tests ran with. pip installs
# the pinned uv first, because uv reads hashes from constraints and pip does not.
RUN --mount=type=bind,target=/context --mount=type=secret,id=ca --mount=type=secret,id=netrc <<'EOF'
set -eu
if [ -s /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca SSL_CERT_FILE=/run/secrets/ca; fi
if [ -s /run/secrets/netrc ]; then export NETRC=/run/secrets/netrc; fi
sed -n '/^uv==/,/[^\\]$/p' /context/requirements-dev.txt > /tmp/uv.txt
pip install --no-cache-dir --disable-pip-version-check --root-user-action=ignore --require-hashes --requirement /tmp/uv.txt
rm /tmp/uv.txt
wheel=$(echo /context/dist/*.whl)
sum=$(sha256sum "$wheel")
uv pip install --system --no-cache --compile-bytecode --require-hashes \
    --constraints /context/requirements-dev.txt "prebuilt @ file://$wheel#sha256=${sum%% *}"
EOF

CMD ["builder", "--help"]
