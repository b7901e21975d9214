#!/usr/bin/env bash
# engine.sh up | down | in COMMAND... | folder | pid: a Docker engine in mount, network, process, IPC and host name namespaces of its
# own, one for each checkout of the repository, so that nothing of it touches the machine and the end of one process
# ends all of it. `in` runs a command in there, with the cluster's programs in PATH and KUBECONFIG set.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
ID=$(hash_of <<<"$ROOT" | cut -c1-8)
ENGINE=$CACHE/engines/$ID
LINK=ka-$ID
SOCKET=$ENGINE/docker.sock
export DOCKER_HOST=unix://$SOCKET

started() { cut -d' ' -f22 "/proc/$1/stat" 2>/dev/null; } # a pid may be another process by now, not with this too

running() { # the engine's first process, as seen from the machine
    local pid start
    read -r pid start 2>/dev/null <"${1:-$ENGINE}/init" && [ -n "$start" ] && [ "$(started "$pid")" = "$start" ] && echo "$pid"
}

inside() { # COMMAND...
    local pid programs
    pid=$(running) || die "the engine is not running: make cluster"
    programs=$(cat "$ENGINE/programs")
    exec nsenter -t "$pid" -m -n -p -i -u -- env -C "$PWD" HOME="$ENGINE" KUBECONFIG="$ENGINE/kubeconfig" PATH="$programs:/usr/sbin:/usr/bin:/sbin:/bin:$PATH" "$@"
}

subnet() { # the third byte of the link's addresses: the first that no other engine has
    local taken
    [ -s "$ENGINE/subnet" ] && cat "$ENGINE/subnet" && return
    taken=$(cat "$CACHE"/engines/*/subnet 2>/dev/null || true)
    comm -23 <(seq 0 255 | sort) <(sort <<<"$taken") | sort -n | head -n 1 | tee "$ENGINE/subnet"
}

forget_lost() { # engines of checkouts that are gone
    local other
    for other in "$CACHE"/engines/*/; do
        other=${other%/}
        [ -e "$(cat "$other/checkout" 2>/dev/null || true)" ] || running "$other" >/dev/null || rm -rf "$other"
    done
}

namespaces() { # starts the first process and links its network with the machine's
    local outer init=
    ip link del "$LINK" 2>/dev/null || true
    rm -rf "$ENGINE"/{exec,docker.sock,dockerd.pid,init} # pid files of dead namespaces: dockerd would believe them
    setsid unshare --mount --net --pid --ipc --uts --fork --kill-child --mount-proc \
        "$HERE/engine-init.sh" "$programs/pause" >"$CACHE/logs/engine-$ID.log" 2>&1 </dev/null &
    outer=$!
    for _ in $(seq 300); do
        init=$(pgrep -P $outer || true)
        [ -z "$init" ] || ! nsenter -t "$init" -m test -f /run/ready 2>/dev/null || break
        sleep 0.1
    done
    [ -n "$init" ] || die "the engine's namespaces did not come up: $(tail -n 3 "$CACHE/logs/engine-$ID.log")"
    echo "$init $(started "$init")" >"$ENGINE/init"
    local net
    net=10.91.$(subnet)
    ip link add "$LINK" type veth peer name up0 netns "$init"
    ip addr add "$net.1/30" dev "$LINK"
    ip link set "$LINK" up
    nsenter -t "$init" -n sh -c "ip addr add $net.2/30 dev up0; ip link set up0 up; ip route add default via $net.1"
}

daemon() {
    (inside setsid dockerd --data-root "$ENGINE/data" --exec-root "$ENGINE/exec" -H "$DOCKER_HOST" \
        -p "$ENGINE/dockerd.pid" --exec-opt native.cgroupdriver=cgroupfs \
        --add-runtime lesscaps="$programs/runc-lesscaps" --default-runtime lesscaps) >"$CACHE/logs/dockerd-$ID.log" 2>&1 </dev/null &
    for _ in $(seq 600); do
        docker version >/dev/null 2>&1 && return
        sleep 0.1
    done
    die "Docker did not come up: $(tail -n 3 "$CACHE/logs/dockerd-$ID.log")"
}

at_least() { # SETTING VALUE: the one thing that is the machine's own: each node watches some forty files
    (($(sysctl -n "$1") >= $2)) || sysctl -qw "$1=$2"
}

up() {
    local programs=$1
    at_least fs.inotify.max_user_instances 1024
    at_least fs.inotify.max_user_watches 524288
    mkdir -p "$ENGINE"
    echo "$programs" >"$ENGINE/programs"
    echo "$ROOT" >"$ENGINE/checkout"
    forget_lost
    if ! running >/dev/null || ! docker version >/dev/null 2>&1; then
        say "starting a Docker engine of its own"
        down
        namespaces
        daemon
    fi
}

down() {
    local pid
    ! pid=$(running) || kill -9 "$pid"
    for _ in $(seq 100); do
        running >/dev/null || break
        sleep 0.1
    done
    rm -f "$ENGINE/init"
    ip link del "$LINK" 2>/dev/null || true
}

export PATH=/usr/sbin:/usr/bin:$PATH # Debian's own docker client, which needs no plugin to build
case ${1:-} in
up)
    programs=$("$HERE/programs.sh")
    under_lock engine "$0" locked-up "$programs"
    ;;
locked-up) up "$2" ;;
down) under_lock engine "$0" locked-down ;;
locked-down) down ;;
in)
    shift
    inside "$@"
    ;;
folder) echo "$ENGINE" ;;
pid) running ;;
*) die "usage: engine.sh up | down | in COMMAND... | folder | pid" ;;
esac
