#!/bin/sh
# install-packages.sh [dist] - install what building and testing runs, and only what is missing of it; with "dist", what
# making a release runs, too.
set -eu

# Each line: a file or command that must be there, and the Debian package that brings it.
needed='
make make
cc gcc
/usr/include/stdio.h libc6-dev
ip iproute2
bridge iproute2
nft nftables
iptables iptables
conntrack conntrack
ping iputils-ping
jq jq
strace strace
valgrind valgrind
unshare util-linux
flock util-linux
nsenter util-linux
mount mount
/usr/share/keyrings/debian-archive-keyring.gpg debian-archive-keyring
/etc/ssl/certs/ca-certificates.crt ca-certificates
'

for_dist='
aarch64-linux-gnu-gcc gcc-aarch64-linux-gnu
/usr/aarch64-linux-gnu/include/stdio.h libc6-dev-arm64-cross
qemu-aarch64-static qemu-user-static
dh debhelper
lintian lintian
git git
'
[ "${1:-}" != dist ] || needed=$needed$for_dist

PATH=$PATH:/usr/sbin:/sbin

present() {
    case $1 in
        /*) [ -e "$1" ] ;;
        *) command -v "$1" >/dev/null 2>&1 ;;
    esac
}

missing=$(echo "$needed" | while read -r what package; do
    [ -z "$what" ] || present "$what" || echo "$package"
done | sort -u | tr '\n' ' ')
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null || [ "$(id -u)" -ne 0 ]; then
    echo "install-packages: missing: $missing; install them (this script can only with apt-get, as root)" >&2
    exit 1
fi
export DEBIAN_FRONTEND=noninteractive
echo "install-packages: installing $missing" >&2
install() {
    # shellcheck disable=SC2086 # the names are words
    apt-get -q -y --no-install-recommends -o Acquire::Retries=3 -o DPkg::Lock::Timeout=300 install $missing
}
# The lists of a fresh machine are empty, those of an old one name packages that are gone.
if ! apt-get -q -s install $missing >/dev/null 2>&1 || ! install; then
    apt-get -q -o Acquire::Retries=3 -o DPkg::Lock::Timeout=300 update
    install
fi
