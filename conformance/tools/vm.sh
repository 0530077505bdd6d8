#!/usr/bin/env bash
# vm.sh [FILTER] - run under Debian's own kernel the tests that the kernel of this machine lets nobody run.
#
# A small machine of bookworm is started with QEMU, emulated, which takes a while; VM_ACCEL=kvm has KVM run it, which not every
# machine that has a /dev/kvm can. It has no network, and a disk with Debian's packages, the test executables, and what they need of this tree at the same paths. Which
# tests to run is what the executables list as ignored here; with FILTER, those whose names contain it, ignored or not.
#
# Everything comes from Debian's archive by obtain.sh's private apt state and is unpacked into the tools directory, as vm/, and
# nothing is installed: QEMU and mke2fs run in the tree that they were unpacked into. Needs root.
#
# VM_MEMORY (MiB, 2048), VM_LIMIT (seconds, 3600). Status: 0 when no test failed, 1 when one did, 2 when the machine did not start.
set -euo pipefail
# shellcheck source=obtain.sh
source "$(dirname "${BASH_SOURCE[0]}")/obtain.sh"

parts=(vm)
host_packages=(qemu-system-x86 e2fsprogs busybox-static cpio)
guest_packages=(
    bash coreutils findutils grep sed gawk util-linux mount procps kmod libc-bin
    iproute2 iptables nftables conntrack iputils-ping strace
)
# Hardware that no such machine has.
useless=(sound drivers/gpu drivers/media drivers/infiniband drivers/scsi drivers/staging drivers/iio drivers/usb drivers/hid
    drivers/input drivers/video drivers/ata drivers/mtd drivers/net/ethernet drivers/net/wireless drivers/net/usb)
# What the tests look for, and no kernel loads by itself.
modules='veth bridge br_netfilter dummy ipvlan macvlan vrf 8021q tun ifb nf_tables nft_chain_nat nf_conntrack_netlink sch_tbf'

# closure PACKAGE…: those and all that they depend on, as on a machine with nothing installed. With the suite, because a newer
# version that is installed here would be wanted otherwise.
closure() {
    apt bookworm -s -o Dir::State::status=/dev/null --no-install-recommends install "$@" |
        sed -n 's,^Inst \([^ ]*\) .*,\1/bookworm,p'
}

# unpack_closure DIR PACKAGE…: with /bin, /sbin and /lib leading into /usr.
unpack_closure() {
    local into=$1 dir; shift
    for dir in bin sbin lib lib64; do
        mkdir -p "$into/usr/$dir"
        ln -sfn "usr/$dir" "$into/$dir"
    done
    # shellcheck disable=SC2046 # the names are words
    fetch_binary bookworm "$into.debs" $(closure "$@") || return 1
    local deb
    for deb in "$debs"/*.deb; do
        dpkg-deb --fsys-tarfile "$deb" | tar -x --keep-directory-symlink -C "$into" || return 1
    done
    rm -rf "$into.debs" "$into"/usr/share/{doc,man,locale,lintian,info}
}

obtain() {
    local stage kernel image
    ensure_suite bookworm || return 1
    stage=$(mktemp -d "$work/vm.XXXXXX")
    say "unpacking QEMU and a small machine of bookworm"
    unpack_closure "$stage/qemu" "${host_packages[@]}" || return 1
    unpack_closure "$stage/guest" "${guest_packages[@]}" || return 1
    image=$(apt_cache bookworm depends linux-image-amd64 | sed -n 's/.*Depends: \(linux-image-[^ ]*\).*/\1/p' | head -1)
    fetch_binary bookworm "$stage/kernel" "$image/bookworm" || return 1
    kernel=$(ls "$stage/kernel/lib/modules")
    (cd "$stage/kernel/lib/modules/$kernel/kernel" && rm -rf "${useless[@]}")
    cp -a "$stage/kernel/lib/modules" "$stage/guest/usr/lib/"
    cp "$stage/kernel/boot/vmlinuz-$kernel" "$stage/vmlinuz"
    rm -rf "$stage/kernel"
    finish_guest "$stage/guest" "$kernel" || return 1
    first_root "$stage" "$kernel" || return 1
    publish "$stage" vm "Linux $kernel"
}

# What the packages' own scripts would have done.
finish_guest() {
    local guest=$1 kernel=$2 name
    for name in iptables iptables-save iptables-restore ip6tables ip6tables-save ip6tables-restore; do
        ln -sfn xtables-nft-multi "$guest/usr/sbin/$name"
    done
    mkdir -p "$guest"/{proc,sys,dev,run,tmp,root,var/lib,etc}
    echo 'root:x:0:0:root:/root:/bin/bash' >"$guest/etc/passwd"
    printf 'root:x:0:\nusers:x:100:\n' >"$guest/etc/group"
    ln -sfn gawk "$guest/usr/bin/awk"
    chroot "$guest" /sbin/ldconfig
    chroot "$guest" /sbin/depmod "$kernel"
}

# The initramfs: it loads what the disk needs, and goes there.
first_root() {
    local stage=$1 kernel=$2 root=$1/first module file
    mkdir -p "$root"/{bin,dev,proc,sys,m,new}
    cp "$stage/qemu/usr/bin/busybox" "$root/bin/"
    for module in virtio_pci virtio_blk ext4; do
        chroot "$stage/guest" /sbin/modprobe -S "$kernel" --show-depends "$module" | sed -n 's/^insmod \([^ ]*\).*/\1/p'
    done | awk '!seen[$0]++' >"$stage/wanted"
    while read -r file; do
        cp "$stage/guest$file" "$root/m/" && echo "${file##*/}" >>"$root/m/order"
    done <"$stage/wanted"
    cat >"$root/init" <<'INIT'
#!/bin/busybox sh
b=/bin/busybox
$b mount -t devtmpfs dev /dev; $b mount -t proc proc /proc
while read -r module; do $b insmod "/m/$module"; done </m/order
i=0; while [ ! -b /dev/vda ] && [ $i -lt 100 ]; do $b usleep 50000; i=$((i + 1)); done
$b mount -t ext4 /dev/vda /new || { echo "vm: no disk"; $b poweroff -f; }
$b mount --move /dev /new/dev; $b umount /proc
exec $b switch_root /new /vm/init
INIT
    chmod +x "$root/init"
    (cd "$root" && find . | "$stage/qemu/usr/bin/busybox" cpio -o -H newc 2>/dev/null | gzip -1) >"$stage/initrd"
    rm -rf "$root" "$stage/wanted"
}

# ---------------------------------------------------------------- a run --

workspace=$(cd "$here/../.." && pwd)
run=$workspace/target/vm

# The executables of the tests, one a line, each behind the directory it runs in.
executables() {
    (cd "$workspace" && cargo test --workspace --tests --no-run --message-format=json 2>"$run/build.log") |
        jq -r 'select(.reason == "compiler-artifact" and .profile.test and .executable != null)
               | select(.target.kind == ["test"]) | "\(.manifest_path | rtrimstr("/Cargo.toml")) \(.executable)"'
}

# chosen EXECUTABLE FILTER: the names of its tests that are to run.
chosen() {
    if [ -n "$2" ]; then
        "$1" --list "$2"
    else
        "$1" --list --ignored
    fi 2>/dev/null | grep -v '^\[skipped: takes a minute' | sed -n 's/: test$//p' | sed 's/^\[[^]]*\] *//' || true
}

# What runs in the machine, as its first process.
guest_init() {
    cat <<INIT
#!/bin/bash
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t tmpfs -o mode=755 run /run; mount -t tmpfs tmp /tmp
mount -t cgroup2 cgroup2 /sys/fs/cgroup; mkdir -p /dev/shm /run/netns; mount -t tmpfs shm /dev/shm
mount --make-rshared /
echo "vm: started" >/dev/console
ip link set lo up
for module in $modules; do modprobe -q \$module || echo "vm: no module \$module"; done
export HOME=/root LC_ALL=C.UTF-8 TRESTLE_TOOLS_FETCH=no RUST_BACKTRACE=0 $1
echo "vm: ready" >/dev/console
exec >/dev/ttyS1 2>&1
echo "vm: \$(uname -r)"
. /vm/tests
echo "vm: end"
sync; echo o >/proc/sysrq-trigger; sleep 60
INIT
}

# disk TESTS VARIABLES: the machine's disk with everything on it.
disk() {
    local tests=$1 variables=$2 root=$run/root dir executable
    rm -rf "$root"; mkdir -p "$root/vm"
    cp -a "$tools/vm/guest/." "$root/"
    guest_init "$variables" >"$root/vm/init"; chmod +x "$root/vm/init"
    cp "$tests" "$root/vm/tests"
    for dir in cni-conf conformance docs fuzz; do
        mkdir -p "$root$workspace/$dir" && cp -a "$workspace/$dir/." "$root$workspace/$dir/"
    done
    for dir in plugins-new plugins-old cnitool-new cnitool-old; do
        [ ! -d "$tools/$dir" ] || { mkdir -p "$root$tools" && cp -a "$tools/$dir" "$root$tools/"; }
    done
    while read -r dir executable; do
        mkdir -p "$root$dir" "$root$workspace/target/tmp" "$root${executable%/*}"
        cp "$executable" "$root$executable"
    done <"$run/executables"
    mkdir -p "$root${binary%/*}"; cp "$binary" "$root$binary"
    # CARGO_TARGET_TMPDIR of the executables.
    find "$workspace/target" -maxdepth 2 -name tmp -type d | while read -r dir; do mkdir -p "$root$dir"; done
    rm -f "$run/disk"
    in_qemu_root /sbin/mke2fs -q -t ext4 -O ^has_journal -m 0 -d /run/root /run/disk 3G
    rm -rf "$root"
}

# Runs a program in the tree that it was unpacked into, which sees the run's directory as /run.
in_qemu_root() {
    timeout "${VM_LIMIT:-3600}" unshare --mount --propagation private bash -c '
        root=$1 run=$2; shift 2
        mkdir -p "$root"/{dev,proc,run,tmp}
        mount --rbind /dev "$root/dev" && mount -t proc proc "$root/proc" && mount --bind "$run" "$root/run"
        exec chroot "$root" "$@"' in_qemu_root "$tools/vm/qemu" "$run" "$@"
}

start() {
    local speed=(-accel tcg,thread=multi -cpu max,la57=off)
    [ "${VM_ACCEL:-tcg}" != kvm ] || speed=(-accel kvm -cpu host)
    cp "$tools/vm/vmlinuz" "$tools/vm/initrd" "$run/"
    : >"$run/output"
    in_qemu_root /usr/bin/qemu-system-x86_64 \
        -nodefaults -no-user-config -display none -no-reboot -machine q35 "${speed[@]}" \
        -smp 2 -m "${VM_MEMORY:-2048}" -kernel /run/vmlinuz -initrd /run/initrd \
        -append 'console=ttyS0 loglevel=4 panic=-1 mitigations=off audit=0' \
        -drive file=/run/disk,if=virtio,format=raw,cache=unsafe \
        -serial file:/run/console -serial file:/run/output </dev/null >"$run/qemu.log" 2>&1 &
    local machine=$!
    tail -n +1 -f --pid=$machine "$run/output" | sed -u 's/\r$//'
    wait $machine || true
}

run_tests() {
    local filter=${1:-} dir executable name count=0
    rm -rf "$run"; mkdir -p "$run"
    binary=${TRESTLE_BIN:?name the binary to test}
    executables >"$run/executables" || { tail -n 5 "$run/build.log" >&2; return 2; }
    : >"$run/tests"
    while read -r dir executable; do
        while read -r name; do
            printf 'cd %q && %q --exact %q 2>&1 | grep -E "^test |panicked|^  (left|right)"\n' "$dir" "$executable" "$name" >>"$run/tests"
            count=$((count + 1))
        done < <(cd "$dir" && chosen "$executable" "$filter")
    done <"$run/executables"
    say "$count tests for the machine"
    disk "$run/tests" "TRESTLE_BIN=$binary TRESTLE_TOOLS=$tools"
    start
    rm -f "$run/disk"
    grep -q '^vm: end' "$run/output" || { say "the machine did not get to the end"; tail -n 5 "$run/console" "$run/qemu.log" >&2; return 2; }
    tr -d '\r' <"$run/output" | awk '
        /^test result: / { passed += $4; failed += $6; skipped += $8 }
        END { printf "%d passed, %d failed, %d skipped\n", passed, failed, skipped; exit failed > 0 }'
}

(main)
run_tests "$@"
