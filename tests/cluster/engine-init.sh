#!/usr/bin/env bash
# First process of the engine's namespaces: mounts of its own, then it becomes the reaper given as argument.
set -e
mount --make-rprivate / # nothing leaks to the machine
mount --make-rshared /
unified=
[ ! -e /sys/fs/cgroup/cgroup.controllers ] || unified=yes
umount -l -R /sys/fs/cgroup /sys 2>/dev/null || umount -l /sys
umount -l /run/netns 2>/dev/null || true
mount -t sysfs sysfs /sys
if [ -n "$unified" ]; then
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
else
    mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
    for hierarchy in cpu cpuacct cpuset memory devices freezer blkio pids; do
        mkdir -p /sys/fs/cgroup/$hierarchy
        mount -t cgroup -o $hierarchy cgroup /sys/fs/cgroup/$hierarchy
    done
    mkdir -p /sys/fs/cgroup/systemd
    mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd
fi
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock /run/netns /run/containerd /run/sysctl
# The kubelet insists on these three: it is shown the values, the machine's stay as they are.
for wanted in vm/overcommit_memory=1 kernel/panic=10 kernel/panic_on_oops=1; do
    file=/run/sysctl/$(basename "${wanted%%=*}")
    echo "${wanted##*=}" >"$file"
    mount --bind "$file" "/proc/sys/${wanted%%=*}"
done
hostname engine
ip link set lo up
sysctl -q -w net.ipv4.ip_forward=1
echo ready >/run/ready
exec "$1"
