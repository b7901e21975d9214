#!/usr/bin/env bash
# programs.sh: builds every program of the cluster from Go modules, 8 to 14 minutes on two cores the first time, and prints
# the folder that has them all. A program is built again when its version, its recipe or the Go compiler changes.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
export CGO_ENABLED=0 GOTOOLCHAIN=local GOFLAGS=-trimpath

go_modules() { # go_modules FOLDER COMMAND...: go's progress lines left out
    cd "$1"
    shift
    go "$@" 2>&1 | { grep -vE '^go: (downloading|finding|added|upgraded)' || true; }
}

kubernetes() { # OUT VERSION: its seven programs from one module, whose staging modules are replaced by the published ones
    local source=$1/source version=$2 name module
    local mod
    mkdir "$source"
    go mod download "k8s.io/kubernetes@v$version"
    mod=$(go env GOMODCACHE)/cache/download/k8s.io/kubernetes/@v/v$version.mod
    {
        printf 'module kubeactor.test/kubernetes\n\ngo 1.26.0\n\nrequire k8s.io/kubernetes v%s\n\ntool (\n' "$version"
        for name in kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl kubeadm; do
            printf '\tk8s.io/kubernetes/cmd/%s\n' "$name"
        done
        printf ')\n\nreplace (\n'
        sed -n 's#^\s*\(k8s.io/[a-z-]*\) => ./staging.*#\1#p' "$mod" | while read -r module; do
            printf '\t%s => %s v0.%s\n' "$module" "$module" "${version#1.}"
        done
        printf ')\n'
    } >"$source/go.mod"
    go_modules "$source" mod tidy
    local stamp="-X k8s.io/component-base/version"
    (cd "$source" && go build -ldflags "-s -w $stamp.gitVersion=v$version $stamp.gitMajor=1 \
        $stamp.gitMinor=$(cut -d. -f2 <<<"$version")" -o "$1/" tool)
    rm -r "$source"
}

module() { # OUT VERSION NAME MODULE PACKAGE: one program, a tool dependency of a module of its own
    local source=$1/source
    mkdir "$source"
    printf 'module kubeactor.test/%s\n\ngo 1.26.0\n' "$3" >"$source/go.mod"
    go_modules "$source" get -tool "$4@v$2"
    (cd "$source" && go build -ldflags '-s -w' -o "$1/$3" "$5")
    rm -r "$source"
}

lesscaps() { # OUT: see lesscaps/main.go
    (cd "$HERE/lesscaps" && go build -ldflags '-s -w' -o "$1/runc-lesscaps" .)
}

pause() { # OUT: the process that keeps the namespaces of a pod, and of the engine
    cc -O2 -static -o "$1/pause" "$HERE/pause.c"
}

once() { # once WHAT KEY COMMAND...: the folder programs/WHAT-KEY, made by COMMAND FOLDER ... if it is not there
    local what=$1 folder=$CACHE/programs/$1-$2 making command=$3
    shift 3
    if [ ! -d "$folder" ]; then
        making=$(mktemp -d "$CACHE/programs/making.XXXXXX")
        step "building $what (kept in $CACHE)" "$command" "$making" "$@"
        chmod 755 "$making"
        mv -T "$making" "$folder"
    fi
    folders+=("$folder")
}

build() {
    command -v go >/dev/null || die "Go is missing: install Go 1.26 or newer, the cluster's programs are built with it"
    command -v cc >/dev/null || die "a C compiler is missing: apt-get install gcc libc6-dev"
    local go folders=() all making
    go=$(go env GOVERSION)
    rm -rf "$CACHE"/programs/making.*
    key() { { echo "$go"; printf '%s\n' "$@"; recipe go_modules "$1"; } | hash_of; } # FUNCTION INPUT...
    once kubernetes "$KUBERNETES-$(key kubernetes)" kubernetes "$KUBERNETES"
    once etcd "$ETCD-$(key module)" module "$ETCD" etcd go.etcd.io/etcd/server/v3 go.etcd.io/etcd/server/v3
    once kind "$KIND-$(key module)" module "$KIND" kind sigs.k8s.io/kind sigs.k8s.io/kind
    once helm "$HELM-$(key module)" module "$HELM" helm helm.sh/helm/v4/cmd/helm helm.sh/helm/v4/cmd/helm
    once coredns "$COREDNS-$(key module)" module "$COREDNS" coredns github.com/coredns/coredns github.com/coredns/coredns
    once local-path "$LOCAL_PATH-$(key module)" module "$LOCAL_PATH" local-path-provisioner \
        github.com/rancher/local-path-provisioner github.com/rancher/local-path-provisioner
    once lesscaps "$(key lesscaps "$(files_hash "$HERE/lesscaps")")" lesscaps
    once pause "$(key pause "$(cat "$HERE/pause.c")")" pause
    all=$CACHE/programs/all-$(printf '%s\n' "${folders[@]}" | hash_of)
    if [ ! -d "$all" ]; then
        making=$(mktemp -d "$CACHE/programs/making.XXXXXX")
        find "${folders[@]}" -type f -exec ln -s -t "$making" {} +
        chmod 755 "$making"
        mv -T "$making" "$all"
    fi
    used "$all" "${folders[@]}"
    echo "$all"
}

case ${1:-} in
"") under_lock programs "$0" locked ;;
locked) build ;;
*) die "usage: programs.sh" ;;
esac
