# shellcheck shell=bash disable=SC2016,SC2034
# Shared by the scripts of sandbox/: paths, messages, and an apt that does not touch
# the machine's own configuration. Source it, do not run it.

SANDBOX_CACHE=$(realpath -m "${BUILDER_SANDBOX_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/builder-sandbox}")
SANDBOX_UV=${SANDBOX_UV:-0.13.8}
GITLAB_CI_LOCAL=4.65.0            # the last version that runs on Node.js 18 and 20
SANDBOX_PORT=${SANDBOX_PORT:-5000}
export BUILDER_SANDBOX_CACHE=$SANDBOX_CACHE SANDBOX_UV SANDBOX_PORT

STEPS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
LAYERS=$SANDBOX_CACHE/layers      # finished layers, *.tar.gz, named by recipe
BUILD=$SANDBOX_CACHE/build        # sources and unfinished compilations
LOGS=$SANDBOX_CACHE/logs          # one per step, and the daemons'
STATE=$SANDBOX_CACHE/state        # configuration, environment, list of pushed images
ENGINE=$SANDBOX_CACHE/engine      # dockerd's own data
GITLAB=$SANDBOX_CACHE/gitlab-ci-local-$GITLAB_CI_LOCAL
EXEC_ROOT=/run/builder-sandbox    # dockerd's sockets and pids
SOCKET=/var/run/docker.sock
REGISTRY=localhost:$SANDBOX_PORT

EPOCH=1700000000                  # the date in every layer and image

CODENAME=$(. /etc/os-release 2>/dev/null && echo "${VERSION_CODENAME:-}") || CODENAME=

say() { printf 'sandbox: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }

need_root() { [ "$(id -u)" = 0 ] || die "must be root to $1; run it as root, or start Docker first"; }

log_name() { echo "${1//[^a-zA-Z0-9.]/-}.log"; }

# step TITLE COMMAND...: run it and print one line with the seconds it took; on
# failure, print the end of its output and the path of the log.
step() {
    local title=$1 log start=$SECONDS; shift
    log=$LOGS/$(log_name "$title")
    if "$@" >"$log" 2>&1; then
        sed -n 's/^NOTE: //p' "$log" | while read -r note; do say "$title: $note"; done
        say "$title ($((SECONDS - start)) s)"
    else
        tail -n 15 "$log" | sed 's/^/    /' >&2
        say "$title: FAILED after $((SECONDS - start)) s; full log: $log"
        return 1
    fi
}

# recipe FILE... -- WORD...: print a short hash of the scripts and facts that make a layer
recipe() {
    { while [ $# -gt 0 ] && [ "$1" != -- ]; do sha256sum <"$1"; shift; done
      printf '%s\n' "$@"; } | sha256sum | cut -c1-12
}

# into FILE.tar.gz: compress stdin to it; the file appears only once it is complete
into() {
    mkdir -p "${1%/*}"
    gzip -n -4 >"$1.part.$$"
    mv "$1.part.$$" "$1"
}

# pids_of NAME WORD: print the pids of this program's processes that have WORD among
# their arguments. There are no pid files, because pids are reused after a crash.
pids_of() {
    local file pid
    for file in $(grep -lsaF -- "$2" /proc/[0-9]*/cmdline); do
        pid=${file//[^0-9]/}
        [ "$(cat "/proc/$pid/comm" 2>/dev/null)" != "$1" ] || echo "$pid"
    done
}

# stop NAME WORD: end them with SIGTERM, after 12 s with SIGKILL
stop() {
    local pid i
    for pid in $(pids_of "$1" "$2"); do
        kill "$pid" 2>/dev/null || true
        for ((i = 0; i < 120; i++)); do [ -e "/proc/$pid" ] || break; sleep 0.1; done
        kill -9 "$pid" 2>/dev/null && sleep 0.3 || true
    done
}

engine_answers() { timeout 10 docker version >/dev/null 2>&1; }
our_engine() { [ -n "$(pids_of dockerd "$STATE/daemon.json")" ]; }
socket_answers() { [ -S $SOCKET ] && curl -fsS -m 2 --unix-socket $SOCKET http://engine/_ping >/dev/null 2>&1; }
registry_answers() { curl -fsS -m 5 -o /dev/null "http://$REGISTRY/v2/" 2>/dev/null; }
our_registry() { [ -n "$(pids_of docker-registry "$STATE/registry.yml")" ]; }

########################################################################## apt

# archives [RELEASE]: print "URI SUITE" for each part of this machine's Debian release as
# its own apt is configured, so that no address is hard-coded here, or for another release
# in the same archives
archives() {
    local lines
    lines=$(apt_targets)
    if [ -z "$lines" ]; then
        apt-get -q update >&2      # apt only knows its targets once it has lists
        lines=$(apt_targets)
    fi
    [ -n "$lines" ] || die "apt has no source for '$CODENAME main', or there is no network"
    echo "${lines// $CODENAME/ ${1:-$CODENAME}}"
}

apt_targets() {
    apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
        awk -v c="$CODENAME" '$3 == "main" && ($2 == c || $2 == c "-updates" || $2 == c "-security") { print $1, $2 }' |
        sort -u
}

# private_apt: make apt-get use separate sources, pins and lists, with bookworm and
# trixie. From trixie it may only install the engine, whose packages need no newer
# libc, because bookworm's engine has no buildx.
private_apt() {
    local a=$SANDBOX_CACHE/apt signed=/usr/share/keyrings/debian-archive-keyring.gpg
    export APT_CONFIG=$a/apt.conf DEBIAN_FRONTEND=noninteractive
    local lines main
    mkdir -p "$a"; exec 7>"$a/lock"; flock 7
    if [ -n "$(find "$a/ready" -mmin -720 2>/dev/null)" ]; then exec 7>&-; return; fi
    unset APT_CONFIG
    lines=$(archives)
    main=$(awk -v c="$CODENAME" '$2 == c { print $1; exit }' <<<"$lines")
    mkdir -p "$a"/{lists/partial,cache/archives/partial,none}
    while read -r uri suite; do echo "deb [signed-by=$signed] $uri $suite main"; done <<<"$lines" >"$a/sources.list"
    { echo "deb [signed-by=$signed] $main trixie main"
      echo "deb-src [signed-by=$signed] $main trixie main"
      echo "deb-src [signed-by=$signed] $main $CODENAME main"; } >>"$a/sources.list"
    cat >"$a/preferences" <<'P'
Package: *
Pin: release n=trixie
Pin-Priority: -1

Package: docker.io docker-cli docker-buildx containerd
Pin: release n=trixie
Pin-Priority: 990
P
    cat >"$a/apt.conf" <<C
Dir::Etc::sourcelist "$a/sources.list";
Dir::Etc::sourceparts "$a/none";
Dir::Etc::preferences "$a/preferences";
Dir::Etc::preferencesparts "$a/none";
Dir::State::lists "$a/lists";
Dir::Cache "$a/cache";
Acquire::Languages "none";
Acquire::Retries "2";
APT::Sandbox::User "root";
APT::Get::Assume-Yes "true";
APT::Install-Recommends "false";
DPkg::Lock::Timeout "300";
C
    export APT_CONFIG=$a/apt.conf
    apt-get -q update
    # apt treats a failed fetch as a warning, but nothing works without the lists
    apt-cache show "docker.io" >/dev/null 2>&1 || die "no package lists: no network, or no Debian archive at $main"
    touch "$a/ready"
    exec 7>&-
}

###################################################################### Pythons

# python_tree MINOR: print the path of an installed CPython of this version that runs on
# bookworm and may be copied: the newest of pyenv's, or one in /usr/local, or nothing
python_tree() {
    [ "${SANDBOX_TREES:-1}" = 1 ] && [ "$CODENAME" = bookworm ] || return 0
    local tree
    { find "${PYENV_ROOT:-$HOME/.pyenv}/versions" -maxdepth 1 -name "$1.*" 2>/dev/null |
          grep -E '/[0-9]+\.[0-9]+\.[0-9]+$' | sort -rV || true
      echo /usr/local; } |
        while read -r tree; do
            # its libc must be bookworm's, which holds if bookworm itself can run it
            if [ -e "$tree/include/python$1/Python.h" ] && "$tree/bin/python$1" -ISEc '' 2>/dev/null; then
                realpath "$tree"
                cat >/dev/null      # read the rest, so that the writer does not fail
            fi
        done
}

# wheel_of REQUIREMENT DIR [pip's options]: download one wheel with whichever pip there is
wheel_of() {
    local requirement=$1 dir=$2 pip; shift 2
    mkdir -p "$dir"
    cd /    # ignore a .python-version in the caller's directory
    for pip in pip pip3 "python3 -m pip"; do
        if $pip --version >/dev/null 2>&1; then break; fi
    done
    $pip --version >/dev/null 2>&1 || (private_apt; apt-get -q install python3-pip)
    PIP_DISABLE_PIP_VERSION_CHECK=1 $pip download -q --no-deps --only-binary :all: -d "$dir" "$@" "$requirement"
}

# sources_of PACKAGE/SUITE...: download the upstream tarballs of source packages to $BUILD/dl
sources_of() {
    local missing=() package
    mkdir -p "$BUILD/dl"
    for package in "$@"; do
        compgen -G "$BUILD/dl/${package%/*}_*.orig.tar.*" >/dev/null || missing+=("$package")
    done
    [ ${#missing[@]} = 0 ] || (cd "$BUILD/dl" && apt-get -q --tar-only --download-only source "${missing[@]}")
}

python_sources() {  # python_sources MINOR...: print the package and the release that has it
    local minor
    for minor in "$@"; do
        case $minor in 3.11) echo python3.11/bookworm ;; *) echo "python$minor/trixie" ;; esac
    done
}
