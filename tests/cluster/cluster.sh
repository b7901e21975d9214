#!/usr/bin/env bash
# cluster.sh up | down | in COMMAND... | running | env: the test cluster of this checkout, made by kind from kind-config.yaml.
# Where Docker, kind, kubectl and helm work, with those. Else, as root on Debian, with an engine, programs and a node image
# made here from packages. `in` runs a command where 127.0.0.1 has the cluster's ports; `env` prints how to reach it.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# From the engine's network straight to the pods, as the nodes do it.
ROUTES='{range .items[*]}route replace {.spec.podCIDR} via {.status.addresses[?(@.type=="InternalIP")].address}{"\n"}{end}'

missing() { # in one line, what keeps this machine from having a cluster, or nothing
    local debian="docker.io containerd runc containernetworking-plugins iptables conntrack ethtool socat mmdebstrap jq zstd"
    if [ "$(id -u)" != 0 ] || [ ! -e /etc/debian_version ]; then
        echo "no cluster here: install Docker, kind, kubectl and helm, or run this as root on Debian 12"
    elif ! command -v go >/dev/null; then
        echo "no cluster here: install Go 1.26 or newer, the cluster's programs are built with it"
    elif ! PATH=/usr/sbin:$PATH command -v dockerd mmdebstrap conntrack zstd >/dev/null; then
        echo "no cluster here: apt-get install $debian"
    fi
}

ready_made() { # a machine with all that a user of kind has
    command -v kind >/dev/null && command -v kubectl >/dev/null && command -v helm >/dev/null && docker version >/dev/null 2>&1
}

where() { # sets run (how to enter), folder (what is kept of this cluster) and own (whether the engine is ours)
    if ready_made; then
        own='' run=() folder=$CACHE/engines/plain
        mkdir -p "$folder"
        export KUBECONFIG=$folder/kubeconfig
    else
        local lack
        lack=$(missing)
        [ -z "$lack" ] || die "$lack"
        own=yes run=("$HERE/engine.sh" in)
        folder=$("$HERE/engine.sh" folder)
    fi
}

healthy() {
    [ "$(cat "$folder/cluster" 2>/dev/null)" = "$wanted" ] &&
        "${run[@]}" kubectl --request-timeout=10s wait node --all --for=condition=Ready --timeout=20s >/dev/null 2>&1
}

node_image() { # the name of our node image, loaded into the engine
    local archive name
    archive=$("$HERE/node.sh")
    name=$(basename "$archive" .tar.zst)
    name=kubeactor-node:${name#node-}
    if ! "${run[@]}" docker image inspect "$name" >/dev/null 2>&1; then
        step "loading the node image" load_node "$archive" "$name"
    fi
    echo "$name"
}

load_node() { # ARCHIVE NAME
    local old
    for old in $("${run[@]}" docker images --quiet kubeactor-node); do
        "${run[@]}" docker rmi --force "$old" || true # one that a cluster still runs on stays
    done
    zstd -qdc "$1" | "${run[@]}" docker import -c 'ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]' \
        -c 'ENV container=docker PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' - "$2"
}

create() {
    rm -f "$folder/cluster"
    "${run[@]}" kind delete cluster --name "$CLUSTER"
    "${run[@]}" kind create cluster --name "$CLUSTER" --config "$ROOT/kind-config.yaml" --wait 300s "$@" || {
        "${run[@]}" kind delete cluster --name "$CLUSTER" # half a cluster helps nobody
        return 1
    }
    "${run[@]}" kubectl wait node --all --for=condition=Ready --timeout=300s
    "${run[@]}" kubectl -n kube-system wait pod --all --for=condition=Ready --timeout=300s
    echo "$wanted" >"$folder/cluster"
}

running() { # is there one, well or not
    [ -e "$folder/cluster" ] && { [ -z "$own" ] || "$HERE/engine.sh" pid >/dev/null; }
}

up() {
    local image=()
    if [ -n "$own" ]; then
        "$HERE/engine.sh" up
        image=(--image "$(node_image)")
        [ -n "${image[1]}" ] || exit 1
    fi
    wanted="${image[*]} $(hash_of <"$ROOT/kind-config.yaml")"
    healthy || step "creating the cluster" create "${image[@]}"
    [ -z "$own" ] || "${run[@]}" kubectl get nodes -o jsonpath="$ROUTES" | "${run[@]}" ip -batch -
    say "ready"
}

down() {
    rm -f "$folder/cluster"
    if [ -z "$own" ] || "$HERE/engine.sh" pid >/dev/null; then
        step "deleting the cluster" "${run[@]}" kind delete cluster --name "$CLUSTER"
    fi
    [ -z "$own" ] || "$HERE/engine.sh" down
}

where
case ${1:-} in
up) under_lock "cluster-$(basename "$folder")" "$0" locked-up ;;
locked-up) up ;;
down) under_lock "cluster-$(basename "$folder")" "$0" locked-down ;;
locked-down) down ;;
in)
    shift
    exec "${run[@]}" "$@"
    ;;
running) ! running || echo yes ;;
env)
    echo "KUBECONFIG=$folder/kubeconfig"
    [ -z "$own" ] || echo "DOCKER_HOST=unix://$folder/docker.sock"
    [ -z "$own" ] || echo "PROGRAMS=$(cat "$folder/programs")"
    [ -z "$own" ] || echo "PID=$("$HERE/engine.sh" pid)"
    ;;
*) die "usage: cluster.sh up | down | in COMMAND... | running | env" ;;
esac
