#!/usr/bin/env bash
# obtain.sh - fetch the container runtimes that the end-to-end tests run, and make their image; fetch firewalld,
# BIRD and kubectl.
#
# Like ../tools/obtain.sh, whose functions it uses: Debian's packages, verified by apt and only unpacked, into the
# tools directory:
#
#   runtimes/usr/         of bookworm: containerd 1.6, runc, podman, conmon, and libraries a small machine may lack
#   runtimes/image.tar    an image of the static busybox (see image.sh)
#   containerd-1.7/usr/   of trixie: containerd, its shim and ctr, which do with bookworm's libc and runc
#   containerd-2/usr/     of sid: the same
#   firewalld/usr/        of bookworm: firewalld, the message bus, a Python to run it with, and their libraries
#   bird/usr/             of bookworm: BIRD, the routing daemon, and its libraries
#   kubectl/usr/          of bookworm: kubectl
#
# Each has a file VERSION, written last. Status: 0 when everything is there, 1 when a part is missing (stderr says
# which and why), 2 when nothing could be tried.
set -euo pipefail
# shellcheck source=../tools/obtain.sh
source "$(dirname "${BASH_SOURCE[0]}")/../tools/obtain.sh"

runtimes=(
    containerd runc busybox-static podman conmon
    # seccomp.json and policy.json, which podman doesn't run without
    golang-github-containers-common golang-github-containers-image
    # what those are linked with
    libseccomp2 libgpgme11 libassuan0 libsubid4 libdevmapper1.02.1 libselinux1 libudev1 libpcre2-8-0
    libglib2.0-0 libsystemd0 libcap2 libgcrypt20 libgpg-error0 liblzma5 libzstd1 liblz4-1
)
firewalld=(
    firewalld python3-firewall python3-nftables dbus-daemon
    python3-minimal python3.11 python3.11-minimal libpython3.11-minimal libpython3.11-stdlib
    python3-dbus python3-gi gir1.2-glib-2.0
    # what those are linked with
    libnftables1 libgirepository-1.0-1 libglib2.0-0 libffi8 libpcre2-8-0 libdbus-1-3 libexpat1 zlib1g libapparmor1
    libaudit1 libcap-ng0 libselinux1 libsystemd0 libcap2 libgcrypt20 libgpg-error0 liblzma5 libzstd1 liblz4-1
)
bird=(bird2 libssh-gcrypt-4 libreadline8 libtinfo6 libgcrypt20 libgpg-error0)

# unpack DIR PACKAGE…: as on a machine whose /lib leads into /usr, without documentation.
unpack() {
    local root=$1; shift
    # With the suite, because a newer version that is installed here would be wanted otherwise.
    fetch_binary bookworm "$root" "${@/%//bookworm}" || return 1
    mkdir -p "$root/usr/lib" && cp -a "$root/lib/." "$root/usr/lib/" && rm -rf "$root/lib" || return 1
    rm -rf "$root"/usr/share/{doc,man,locale,lintian}
}

obtain_runtimes() {
    local root version
    root=$(mktemp -d "$work/runtimes.XXXXXX")
    unpack "$root" "${runtimes[@]}" || return 1
    version="containerd $(version_of "$debs" containerd), podman $(version_of "$debs" podman)"
    "$here/image.sh" "$root/bin/busybox" "$root/image.tar" || { say "no image could be made"; return 1; }
    publish "$root" runtimes "$version"
}

# obtain_packages PART MAIN PACKAGE…: bookworm's packages and nothing else; the version is that of MAIN.
obtain_packages() {
    local part=$1 main=$2 root; shift 2
    root=$(mktemp -d "$work/$part.XXXXXX")
    unpack "$root" "$@" || return 1
    publish "$root" "$part" "$main $(version_of "$debs" "$main")"
}

obtain_kubectl() {
    local root version
    root=$(mktemp -d "$work/kubectl.XXXXXX")
    fetch_binary bookworm "$root" kubernetes-client/bookworm || return 1
    version=$(version_of "$debs" kubernetes-client)
    publish "$root" kubectl "kubernetes-client $version"
}

# obtain_containerd PART SUITE: containerd alone. The suite's runc wants a newer libc, and never sees a plugin.
obtain_containerd() {
    local part=$1 suite=$2 root unpacked version program
    unpacked=$(mktemp -d "$work/unpacked.XXXXXX")
    root=$(mktemp -d "$work/containerd.XXXXXX")
    fetch_binary "$suite" "$unpacked" "containerd/$suite" || return 1
    version=$(version_of "$debs" containerd)
    mkdir -p "$root/usr/bin"
    for program in containerd containerd-shim-runc-v2 ctr; do
        mv "$unpacked/usr/bin/$program" "$root/usr/bin/" || return 1
    done
    "$root/usr/bin/containerd" --version >/dev/null || { say "containerd of $suite doesn't run on this machine"; return 1; }
    publish "$root" "$part" "$version"
}

obtain() {
    case $1 in
        runtimes) obtain_runtimes ;;
        containerd-1.7) obtain_containerd containerd-1.7 trixie ;;
        containerd-2) obtain_containerd containerd-2 sid ;;
        firewalld) obtain_packages firewalld firewalld "${firewalld[@]}" ;;
        bird) obtain_packages bird bird2 "${bird[@]}" ;;
        kubectl) obtain_kubectl ;;
    esac
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
parts=(runtimes containerd-1.7 containerd-2 firewalld bird kubectl)
scaffold=(apt)
main "$@"
