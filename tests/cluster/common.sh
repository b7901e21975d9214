# Sourced by the scripts here: where things are, how progress is told, what is built once.
# Everything that is kept lies in $CACHE, outside of the repository, under names that contain a hash of what it was made
# of; it appears there whole (made aside, then renamed), so a killed run leaves nothing half.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(cd "$HERE/../.." && pwd)
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/kubeactor
CLUSTER=kubeactor # kind's name of it
# shellcheck source=versions.env
. "$HERE/versions.env"
mkdir -p "$CACHE"/{logs,locks,programs,images,wheels,engines}

say() { echo "cluster: $*" >&2; }
die() { echo "cluster: $*" >&2; exit 1; }
hash_of() { sha256sum | cut -c1-12; }                                               # of its input
files_hash() { (cd "$1" && find . -type f -print0 | sort -z | xargs -0 sha256sum) | hash_of; } # of a folder
recipe() { local name; for name; do declare -f "$name"; done; }                     # of functions, for keys

step() { # step WHAT COMMAND...: says what it does and, if it takes long, that it still does; on failure the log's end
    local what=$1 from=$SECONDS told=0 log pid
    shift
    log=$(mktemp "$CACHE/logs/step.XXXXXX")
    say "$what"
    "$@" >"$log" 2>&1 </dev/null &
    pid=$!
    while kill -0 "$pid" 2>/dev/null; do
        sleep 0.1
        if ((SECONDS - from >= told + 30)); then
            told=$((SECONDS - from))
            say "$what: $told s, still at it"
        fi
    done
    if ! wait "$pid"; then
        tail -n 20 "$log" >&2
        die "$what: failed after $((SECONDS - from)) s (all of it: $log)"
    fi
    rm -f "$log"
    ((SECONDS - from < 10)) || say "$what: $((SECONDS - from)) s"
}

used() { # used PATH...: marks what this run uses, so that what nobody used for a month can go
    touch "$@"
    find "$CACHE"/{programs,images,wheels} -mindepth 1 -maxdepth 1 -mtime +30 -exec rm -rf {} +
}

under_lock() { # under_lock NAME SCRIPT ARGUMENT...: one process at a time; what it leaves running does not keep the lock
    local name=$1
    shift
    flock --nonblock --close --conflict-exit-code 75 "$CACHE/locks/$name" "$@" && return 0 || local code=$?
    ((code == 75)) || return $code
    say "another run is at it ($name): waiting for it"
    flock --close "$CACHE/locks/$name" "$@"
}
