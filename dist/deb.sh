#!/usr/bin/env bash
# deb.sh [OUT] - the Debian package of what release.sh made for this machine's architecture, in OUT (target/dist unless given).
#
# Plugins in /usr/lib/cni, where Debian's runtimes look, `trestle` in /usr/bin, examples and units for what stands around them. The
# package brings no configuration: /etc/cni/net.d is the administrator's, and stays when the package is purged.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=$(realpath -m "${1:-target/dist}")
arch=${ARCH:-$(uname -m)}
archive=$(echo "$out/trestle-linux-$arch-v"*.tgz)
[ -f "$archive" ] || { echo "deb: no release for $arch in $out; run dist/release.sh" >&2; exit 1; }
version=${archive##*-v}; version=${version%.tgz}
debian_arch=$(case $arch in x86_64) echo amd64 ;; aarch64) echo arm64 ;; *) echo "$arch" ;; esac)
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
source=$stage/trestle-$version
mkdir -p "$source/prebuilt"
cp -r dist/debian "$source/debian"
tar -xzf "$archive" -C "$source/prebuilt"
cp CHANGELOG.md README.md "$source/"
cp -r dist "$source/examples"
rm -rf "$source"/examples/{debian,kubernetes,*.sh}

cat >"$source/debian/changelog" <<CHANGES
trestle ($version) unstable; urgency=medium

  * Release $version. See /usr/share/doc/trestle/CHANGELOG.md.gz.

 -- trestle maintainers <maintainers@trestle.example>  $(date -u -R -d "@$SOURCE_DATE_EPOCH")
CHANGES
{
    for file in "$source"/prebuilt/*; do
        case ${file##*/} in LICENSE*) ;; *) echo "prebuilt/${file##*/} usr/lib/cni" ;; esac
    done
    if [ -d target/dist-doc/completions ]; then
        cp -r target/dist-doc/completions "$source/completions"
        echo 'completions/trestle.fish usr/share/fish/vendor_completions.d'
        echo 'completions/_trestle usr/share/zsh/vendor-completions'
    fi
} >"$source/debian/trestle.install"
printf '%s\n' README.md CHANGELOG.md prebuilt/LICENSES-of-crates.txt >"$source/debian/trestle.docs"
echo 'examples/*' >"$source/debian/trestle.examples"
echo '/usr/lib/cni/trestle /usr/bin/trestle' >"$source/debian/trestle.links"
for unit in dist/systemd/*; do
    [ ! -f "$unit" ] || cp "$unit" "$source/debian/trestle.${unit##*/}"
done
if [ -f "$source/completions/trestle.bash" ]; then
    # A file is called as the command there.
    mkdir -p "$source/bash" && cp "$source/completions/trestle.bash" "$source/bash/trestle"
    echo 'bash/trestle usr/share/bash-completion/completions' >>"$source/debian/trestle.install"
fi
if [ -d target/dist-doc/man ]; then
    cp -r target/dist-doc/man "$source/man"
    echo 'man/*' >"$source/debian/trestle.manpages"
fi
(cd "$source" && dpkg-buildpackage --build=binary --host-arch "$debian_arch" -us -uc -d) >"$stage/log" 2>&1 ||
    { tail -20 "$stage/log" >&2; exit 1; }
mv "$stage"/*.deb "$out/"
(cd "$out" && sha256sum -- trestle[-_]* >sha256sums && sha512sum -- trestle[-_]* >sha512sums)
ls -l "$out"/*.deb
