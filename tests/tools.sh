# sh tests/tools.sh: as root on Debian or Ubuntu, installs what tests and benchmarks need beside Python. Elsewhere it
# does nothing: tests that miss a tool are skipped with a line that names it, or fail under CI=true.
set -eu

packages=
need() { # need COMMAND PACKAGE...
    command -v "$1" >/dev/null 2>&1 && return
    shift
    packages="$packages $*"
}
need cc gcc libc6-dev
need curl curl
need lua5.4 lua5.4
need strace strace
need wrk wrk
# What the test cluster is made of (tests/cluster/README.md); a machine with a Docker that works has its own.
if ! docker version >/dev/null 2>&1; then
    PATH=$PATH:/usr/sbin:/usr/lib/cni
    need dockerd docker.io
    need containerd containerd
    need runc runc
    need ptp containernetworking-plugins
    need iptables iptables
    need ip iproute2
    need conntrack conntrack
    need ethtool ethtool
    need socat socat
    need mmdebstrap mmdebstrap
    need jq jq
    need zstd zstd
    need nsenter util-linux
    need pgrep procps
fi
[ -e /usr/include/stdlib.h ] || packages="$packages libc6-dev"

[ -n "$packages" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1 || exit 0
echo "installing$packages"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
if [ ! -e /usr/sbin/policy-rc.d ]; then # tools only: no service of theirs starts
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
    chmod 755 /usr/sbin/policy-rc.d
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
fi
# shellcheck disable=SC2086 # the list is meant to be split
if ! { apt-get -qq update && apt-get -qq -y --no-install-recommends install $packages; } >"$log" 2>&1 </dev/null; then
    tail -n 20 "$log" >&2
    echo "could not install$packages; what needs them will say so" >&2
fi
rm -f "$log"
