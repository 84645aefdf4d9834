# The command line tool and what it starts, docker with buildx and git: the image that the GitLab component's jobs run on.
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

# The wheel, and its own dependencies alone, of the versions and with the hashes that the tests ran with: pip installs
# the pinned uv, which takes hashes from constraints as pip does not.
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
