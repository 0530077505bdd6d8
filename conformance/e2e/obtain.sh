#!/usr/bin/env bash
# obtain.sh - fetch the container runtimes that the end-to-end tests run, and make their image; fetch firewalld.
#
# Like ../tools/obtain.sh, whose functions it uses: Debian's packages of bookworm, verified by apt and only
# unpacked, into runtimes/ and firewalld/ of the tools directory:
#
#   runtimes/usr/         containerd, runc, ctr, podman, conmon, and libraries a small machine may lack
#   runtimes/image.tar    an image of the static busybox (see image.sh)
#   runtimes/VERSION      written last
#   firewalld/usr/        firewalld, the message bus, a Python to run it with, and their libraries
#   firewalld/VERSION     written last
#
# Status: 0 when everything is there, else 1 or 2, and stderr says why.
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

# unpack DIR PACKAGE…: as on a machine whose /lib leads into /usr, without documentation.
unpack() {
    local root=$1; shift
    # With the suite, because a newer version that is installed here would be wanted otherwise.
    fetch_binary bookworm "$root" "${@/%//bookworm}" || return 1
    mkdir -p "$root/usr/lib" && cp -a "$root/lib/." "$root/usr/lib/" && rm -rf "$root/lib" || return 1
    rm -rf "$root"/usr/share/{doc,man,locale,lintian}
}

obtain_runtimes() {
    local root version here=$1
    root=$(mktemp -d "$work/runtimes.XXXXXX")
    unpack "$root" "${runtimes[@]}" || return 1
    version="containerd $(version_of "$debs" containerd), podman $(version_of "$debs" podman)"
    "$here/image.sh" "$root/bin/busybox" "$root/image.tar" || { say "no image could be made"; return 1; }
    publish "$root" runtimes "$version"
}

obtain_firewalld() {
    local root version
    root=$(mktemp -d "$work/firewalld.XXXXXX")
    unpack "$root" "${firewalld[@]}" || return 1
    version=$(version_of "$debs" firewalld)
    publish "$root" firewalld "firewalld $version"
}

all_complete() { complete runtimes && complete firewalld; }

all_complete && exit 0
for tool in apt-get dpkg flock tar awk; do
    command -v "$tool" >/dev/null || die "$tool is missing; this script needs Debian or a derivative of it"
done
[ -r "$keyring" ] || die "no $keyring to verify packages with; install debian-archive-keyring"
mkdir -p "$tools/apt"
tools=$(cd "$tools" && pwd)
exec 9>"$tools/lock"
flock -n 9 || { say "waiting for another run to finish"; flock 9; }
work=$(mktemp -d "$tools/work.XXXXXX")
trap 'rm -rf "$work"' EXIT
complete runtimes || obtain_runtimes "$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)" || say "no runtimes could be had"
complete firewalld || obtain_firewalld || say "firewalld could not be had"
all_complete || exit 1
rm -rf "$tools/apt"
