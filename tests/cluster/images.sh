#!/usr/bin/env bash
# images.sh: builds kubeactor/host and kubeactor/operator by the Dockerfile with the cluster's engine and loads them into
# the nodes. An engine of our own has no way out, so it is given the base image, made from Debian's packages under the same
# name, and the locked wheels. Seconds when nothing changed.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
SUITE=$(. /etc/os-release && echo "$VERSION_CODENAME")
VERSION=$(sed -n 's/^version = "\(.*\)"/\1/p' "$ROOT/pyproject.toml" | head -n 1)
BASE=$(sed -n 's/^ARG PYTHON=//p' "$ROOT/Dockerfile")
run=("$HERE/cluster.sh" in)

wheels() { # OUT: exactly what the locks name
    local lock
    for lock in host operator; do
        "$ROOT/.venv/bin/python" -m pip --disable-pip-version-check download --quiet --require-hashes --only-binary :all: \
            --dest "$1" -r "$ROOT/requirements/$lock.txt"
    done
}

base_root() { # OUT: like the official image: Python in /usr/local/bin, with pip
    local sources=/etc/apt/sources.list.d/debian.sources
    [ -e $sources ] || sources=/etc/apt/sources.list
    mmdebstrap --mode=root --variant=extract --components=main --aptopt='APT::Install-Recommends "false"' \
        --include=python3.11,libpython3.11-stdlib,libstdc++6,ca-certificates,dash,coreutils,base-files "$SUITE" "$1" "$sources"
    rm -rf "$1"/usr/share/{doc,man,locale,info,perl,perl5} "$1"/var/{cache,lib}/apt/* "$1"/var/log/*
    ln -sf dash "$1/bin/sh"
    mkdir -p "$1"/{tmp,etc,usr/local/bin}
    chmod 1777 "$1/tmp"
    printf '%s\n' 'root:x:0:0:root:/root:/bin/sh' 'nobody:x:65534:65534:nobody:/:/usr/sbin/nologin' >"$1/etc/passwd"
    printf '%s\n' 'root:x:0:' 'nogroup:x:65534:' >"$1/etc/group"
    cp /etc/ssl/certs/ca-certificates.crt "$1/etc/ssl/certs/"
    for name in python python3 python3.11; do ln -s /usr/bin/python3.11 "$1/usr/local/bin/$name"; done
    "$ROOT/.venv/bin/python" -m pip --disable-pip-version-check install --quiet --target "$1/usr/lib/python3/dist-packages" pip
}

kept() { # kept FOLDER WHAT COMMAND: the folder, made whole by COMMAND if it is not there
    [ ! -d "$1" ] || return 0
    local making
    making=$(mktemp -d "$CACHE/wheels/making.XXXXXX")
    step "$2" "$3" "$making/it"
    touch "$making/it" # its packages gave it a date of theirs
    mv -T "$making/it" "$1"
    rmdir "$making"
}

context() { # the Dockerfile's context, with the wheels
    local folder
    folder=$CACHE/wheels/$(cat "$ROOT"/requirements/{host,operator}.txt | hash_of)
    tar -C "$ROOT" --exclude=__pycache__ -cf - Dockerfile pyproject.toml README.md LICENSE host operator requirements/host.txt requirements/operator.txt \
        -C "$folder/.." --transform "s#^${folder##*/}#requirements/wheels#" "${folder##*/}"
}

build() { # TARGET
    local command=(docker build --target "$1" -t "kubeactor/$1:$VERSION")
    if [ -n "$own" ]; then
        context | "${run[@]}" env DOCKER_BUILDKIT=1 "${command[@]}" --build-arg PIP_NO_INDEX=1 \
            --build-arg PIP_FIND_LINKS=/requirements/wheels -
    else
        "${command[@]}" "$ROOT"
    fi
}

load_base() { # FOLDER NAME
    tar -C "$1" -c . | "${run[@]}" docker import -c 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' - "$2"
    "${run[@]}" docker tag "$2" "$BASE"
}

tidy() { # what earlier builds left
    "${run[@]}" docker image prune --force
    "${run[@]}" docker builder prune --force --keep-storage 2GB
}

all() {
    local target folder base own
    rm -rf "$CACHE"/wheels/making.*
    own=$("$HERE/cluster.sh" env | grep '^PID=' || true)
    if [ -n "$own" ]; then
        kept "$CACHE/wheels/$(cat "$ROOT"/requirements/{host,operator}.txt | hash_of)" "fetching the locked wheels" wheels
        folder=$CACHE/wheels/base-$({ echo "$SUITE"; recipe base_root; } | hash_of)
        kept "$folder" "making the base image" base_root
        used "$folder" "$CACHE/wheels/$(cat "$ROOT"/requirements/{host,operator}.txt | hash_of)"
        base=kubeactor-base:${folder##*base-}
        "${run[@]}" docker image inspect "$base" >/dev/null 2>&1 || step "loading the base image" load_base "$folder" "$base"
    fi
    for target in host operator; do
        step "building kubeactor/$target:$VERSION" build $target
    done
    step "loading the images into the nodes" \
        "${run[@]}" kind load docker-image --name "$CLUSTER" "kubeactor/host:$VERSION" "kubeactor/operator:$VERSION"
    [ -z "$own" ] || step "tidying the engine" tidy
}

case ${1:-} in
"") under_lock wheels "$0" locked ;;
locked) all ;;
*) die "usage: images.sh" ;;
esac
