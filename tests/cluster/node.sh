#!/usr/bin/env bash
# node.sh: makes the node image of kind from Debian's packages, the programs and node/, with the images of the control
# plane preloaded under the names that kubeadm asks for; prints the archive of its root. About a minute, then kept.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
SUITE=$(. /etc/os-release && echo "$VERSION_CODENAME")

debian() { # debian VARIANT FOLDER PACKAGE,...: a root folder of Debian's packages
    local sources=/etc/apt/sources.list.d/debian.sources
    [ -e $sources ] || sources=/etc/apt/sources.list
    mmdebstrap --mode=root --variant="$1" --components=main --aptopt='APT::Install-Recommends "false"' \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/info/*' \
        --include="$3" "$SUITE" "$2" "$sources"
    rm -rf "$2"/usr/share/{doc,man,locale,info} "$2"/var/{cache,lib}/apt/* "$2"/var/log/*
}

userland() { # OUT
    debian essential "$1" systemd,containerd,runc,containernetworking-plugins,iptables,nftables,conntrack,iproute2,ethtool,socat,util-linux,mount,kmod,procps,jq,bash,ca-certificates,libseccomp2
}

network_root() { # OUT: what kube-proxy and the pod network run beside their programs
    debian extract "$1" iptables,conntrack,iproute2,kmod,busybox-static
    local name
    for name in iptables iptables-save iptables-restore ip6tables ip6tables-save ip6tables-restore; do
        ln -sf xtables-nft-multi "$1/usr/sbin/$name"
    done
    busybox_links "$1"
    small_root "$1"
}

busybox_links() { # ROOT: a command for each of busybox's that the root has not
    local name
    for name in $("$1/bin/busybox" --list); do
        [ -e "$1/bin/$name" ] || [ -e "$1/sbin/$name" ] || [ -e "$1/usr/bin/$name" ] || [ -e "$1/usr/sbin/$name" ] ||
            ln -s busybox "$1/bin/$name"
    done
}

small_root() { # ROOT: what every container wants
    mkdir -p "$1"/{usr/local/bin,etc,tmp,run,var}
    chmod 1777 "$1/tmp"
    echo 'root:x:0:0:root:/:/bin/sh' >"$1/etc/passwd"
    cp /etc/ssl/certs/ca-certificates.crt "$1/etc/"
}

inner_image() { # ROOT NAME PROGRAM: one archive in $work/tars
    install -m 755 "$3" "$1/usr/local/bin/"
    python3 "$HERE/mkimage.py" "$1" "$2" "$work/tars/$(basename "$3").tar" "/usr/local/bin/$(basename "$3")"
}

inner_images() { # what kubeadm, the pod network and the storage class pull where there is a registry
    local name program
    mkdir -p "$work"/{roots,tars}
    for name in $images; do
        program=${name##*/}
        program=${program%%:*}
        if [ "$program" = kube-proxy ]; then
            network_root "$work/roots/$program"
        else
            small_root "$work/roots/$program"
        fi
        inner_image "$work/roots/$program" "$name" "$programs/$program"
    done
    small_root "$work/roots/local-path"
    inner_image "$work/roots/local-path" localhost/local-path-provisioner:1 "$programs/local-path-provisioner"
    mkdir -p "$work/roots/shell/bin"
    small_root "$work/roots/shell"
    cp "$work/roots/kube-proxy/bin/busybox" "$work/roots/shell/bin/"
    busybox_links "$work/roots/shell"
    python3 "$HERE/mkimage.py" "$work/roots/shell" localhost/shell:1 "$work/tars/shell.tar" /bin/sh
}

named() { # PROGRAM: the name of its image
    tr ' ' '\n' <<<"$images" | grep "/$1:"
}

node_root() {
    local unit
    cp -a "$userland" "$work/node"
    cd "$work/node"
    rm -rf etc/systemd/system/*.wants {usr/,}lib/systemd/system/{multi-user,local-fs,basic}.target.wants/*
    for unit in systemd-{tmpfiles-setup,tmpfiles-setup-dev,udevd,logind,binfmt,firstboot,modules-load,repart}.service \
        systemd-{random-seed,update-utmp,pcrphase,pcrphase-sysinit}.service sys-kernel-{config,debug,tracing}.mount \
        sys-fs-fuse-connections.mount proc-sys-fs-binfmt_misc.automount dev-hugepages.mount getty.target \
        console-getty.service; do
        ln -sf /dev/null "etc/systemd/system/$unit"
    done
    cp -r "$HERE/node/." .
    sed -i "s#@pause@#$(named pause)#" etc/containerd/config.toml
    sed -i "s#@kube-proxy@#$(named kube-proxy)#" kind/manifests/default-cni.yaml
    printf 'v%s' "$KUBERNETES" >kind/version
    install -m 755 "$programs"/{kubeadm,kubelet,kubectl} usr/bin/
    install -m 755 "$programs/runc-lesscaps" usr/local/bin/
    ln -sf /usr/lib/systemd/systemd usr/sbin/init
    mkdir -p etc/kubernetes/manifests etc/cni/net.d opt/cni/bin lib/modules
    rm -f etc/cni/net.d/*
    echo 'ReadKMsg=no' >>etc/systemd/journald.conf
    systemctl --root=. enable containerd.service kubelet.service
    systemctl --root=. set-default multi-user.target
}

preload() { # the inner images into the node's own containerd
    local pid archive socket=$work/containerd/socket
    mkdir -p "$work/containerd"
    cat >"$work/containerd/config.toml" <<-CONFIG
	version = 2
	root = "$work/node/var/lib/containerd"
	state = "$work/containerd/state"
	disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
	  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.devmapper"]
	[grpc]
	address = "$socket"
	CONFIG
    containerd -c "$work/containerd/config.toml" &
    pid=$!
    for _ in $(seq 100); do
        ctr -a "$socket" version >/dev/null 2>&1 && break
        sleep 0.1
    done
    for archive in "$work"/tars/*.tar; do ctr -a "$socket" -n k8s.io images import --no-unpack "$archive"; done
    kill $pid
    wait $pid || true
}

pack() { # OUT
    tar -C "$work/node" -c . | zstd -q -T0 -3 -o "$1"
}

build() {
    local programs images userland node work
    programs=$("$HERE/programs.sh")
    images=$("$programs/kubeadm" config images list --kubernetes-version "v$KUBERNETES" | tr '\n' ' ')
    userland=$CACHE/images/userland-$({ echo "$SUITE"; recipe debian userland; } | hash_of)
    node=$CACHE/images/node-$({ echo "$programs" "$userland"; files_hash "$HERE/node"; cat "$HERE"/{node.sh,mkimage.py}; } | hash_of).tar.zst
    rm -rf "$CACHE"/images/making.*
    if [ ! -e "$node" ]; then
        work=$(mktemp -d "$CACHE/images/making.XXXXXX")
        if [ ! -d "$userland" ]; then
            step "node image: Debian's packages" userland "$work/userland"
            touch "$work/userland" # its packages gave it a date of theirs
            mv -T "$work/userland" "$userland"
        fi
        step "node image: images of the control plane" inner_images
        step "node image: root" node_root
        step "node image: preloading" preload
        step "node image: packing" pack "$work/node.tar.zst"
        mv "$work/node.tar.zst" "$node"
        rm -rf "$work"
    fi
    used "$node" "$userland"
    echo "$node"
}

case ${1:-} in
"") under_lock images "$0" locked ;;
locked) build ;;
*) die "usage: node.sh" ;;
esac
