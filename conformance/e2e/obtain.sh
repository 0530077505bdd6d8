#!/usr/bin/env bash
# obtain.sh - fetch the container runtimes that the end-to-end tests run, and make their image.
#
# Like ../tools/obtain.sh, whose functions it uses: Debian's packages of bookworm, verified by apt and only
# unpacked, into runtimes/ of the tools directory:
#
#   runtimes/usr/         containerd, runc, ctr, podman, conmon, and libraries a small machine may lack
#   runtimes/image.tar    an image of the static busybox (see image.sh)
#   runtimes/VERSION      written last
#
# Status: 0 when everything is there, else 1 or 2, and stderr says why.
set -euo pipefail
# shellcheck source=../tools/obtain.sh
source "$(dirname "${BASH_SOURCE[0]}")/../tools/obtain.sh"

packages=(
    containerd runc busybox-static podman conmon
    # seccomp.json and policy.json, which podman doesn't run without
    golang-github-containers-common golang-github-containers-image
    # what those are linked with
    libseccomp2 libgpgme11 libassuan0 libsubid4 libdevmapper1.02.1 libselinux1 libudev1 libpcre2-8-0
    libglib2.0-0 libsystemd0 libcap2 libgcrypt20 libgpg-error0 liblzma5 libzstd1 liblz4-1
)

obtain_runtimes() {
    local root version here=$1
    root=$(mktemp -d "$work/runtimes.XXXXXX")
    # With the suite, because a newer version that is installed here would be wanted otherwise.
    fetch_binary bookworm "$root" "${packages[@]/%//bookworm}" || return 1
    version="containerd $(version_of "$debs" containerd), podman $(version_of "$debs" podman)"
    # As on a machine whose /bin and /lib lead into /usr.
    mkdir -p "$root/usr/lib" && cp -a "$root/lib/." "$root/usr/lib/" && rm -rf "$root/lib" || return 1
    rm -rf "$root"/usr/share/{doc,man,locale,lintian}
    "$here/image.sh" "$root/bin/busybox" "$root/image.tar" || { say "no image could be made"; return 1; }
    publish "$root" runtimes "$version"
}

complete runtimes && exit 0
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
complete runtimes || obtain_runtimes "$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)" || exit 1
rm -rf "$tools/apt"
