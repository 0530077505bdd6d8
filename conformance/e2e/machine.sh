#!/usr/bin/env bash
# machine.sh SYSTEM - a small machine for a container runtime or another daemon, until standard input ends.
#
# Called in the mount and network namespace of a test host. It adds a PID, IPC, UTS and cgroup namespace and a
# mount namespace where
#   - the root file system is read-only, so that nothing of the real machine can be changed,
#   - /usr and /etc also hold what is under SYSTEM, and /etc can be written but changes nothing outside,
#   - /run/containerd, /run/netns, /run/e2e, /dev/shm and /var/tmp are empty,
#   - /sys/fs/cgroup is a cgroup (version 2) of its own.
# When that is so, one line goes to standard output: the ID of the namespaces' first process, as seen from the
# caller. Any other line says why it can't be so. That process ends with its standard input, and with it the kernel
# ends everything that was started inside; mounts and files are gone with the last of them.
set -euo pipefail

fail() { echo "$*"; exit 1; }

# Everything lies in this cgroup; it is removed from outside when all is over, because a cgroup outlives processes.
if [ "${1-}" != --inside ]; then
    view=$(mktemp -d /run/cgroup.XXXXXX)
    mount -t cgroup2 cgroup2 "$view" || fail "cgroup version 2 can't be mounted"
    own=$(mktemp -d "$view/trestle-e2e.XXXXXX") || fail "no cgroup can be made"
    # In a child, so that this shell isn't in the way of removing it.
    (
        echo 0 >"$own/cgroup.procs"
        exec unshare --mount --propagation private --pid --ipc --uts --cgroup --fork -- "$0" --inside "$view" "$@"
    ) && status=0 || status=$?
    echo 1 >"$own/cgroup.kill" || true
    # The kernel takes a moment to see that a cgroup is empty.
    for _ in $(seq 100); do
        find "$own" -depth -type d -exec rmdir {} + 2>/dev/null || true
        [ -d "$own" ] || break
        sleep 0.05
    done
    umount "$view"
    rmdir "$view"
    exit "$status"
fi
view=$2 system=$3

# /proc still shows the PIDs of outside.
read -r pid _ </proc/self/stat
umount "$view"
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir /sys/fs/cgroup/init
echo 0 >/sys/fs/cgroup/init/cgroup.procs
for dir in /run/containerd /run/netns /run/e2e; do
    mkdir -p "$dir"
    mount -t tmpfs -o mode=0755 tmpfs "$dir"
done
for dir in /dev/shm /var/tmp; do
    [ ! -d "$dir" ] || mount -t tmpfs -o mode=1777 tmpfs "$dir"
done
mkdir /run/e2e/tmp /run/e2e/etc /run/e2e/etc.work
# What the machine has is first: a library of SYSTEM only fills a gap.
mount -t overlay -o "lowerdir=/usr:$system/usr" overlay /usr || fail "no overlay of /usr"
mount -t overlay -o "lowerdir=/etc:$system/etc,upperdir=/run/e2e/etc,workdir=/run/e2e/etc.work" overlay /etc ||
    fail "no overlay of /etc"
mount -o remount,bind,ro /
hostname e2e
mount -t proc proc /proc
echo "$pid"
# Not a plain `exec sleep`: the first process adopts orphans and has to collect them, which bash does.
while read -r _; do :; done
