#!/usr/bin/env bash
# test-archives.sh [OUT] - the files that release.sh left in OUT (target/dist unless given) are what RELEASING.md promises: checksums,
# layout, owners, hard links, static binaries without a path of the machine that made them, bills of materials, documents and images.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=$(realpath "${1:-target/dist}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() { echo "archives: $*" >&2; exit 1; }
checked=0

(cd "$out" && sha256sum --check --quiet sha256sums && sha512sum --check --quiet sha512sums) || fail "checksums"
for file in "$out"/trestle*; do
    grep -q "  ${file##*/}$" "$out/sha256sums" || fail "${file##*/} has no checksum"
done

# binary FILE: static, and says nothing of where it was made.
binary() {
    ! readelf --wide --program-headers "$1" | grep -q INTERP || fail "$1 is not static"
    ! grep -q -a -F -e "$PWD" -e "${CARGO_HOME:-$HOME/.cargo}/registry" "$1" || fail "$1 has a path of this machine in it"
}

for archive in "$out"/trestle-linux-*.tgz; do
    [ -f "$archive" ] || continue
    root=$work/${archive##*/}
    mkdir "$root"
    tar --numeric-owner -tvzf "$archive" >"$work/list"
    ! awk '$2 != "0/0"' "$work/list" | grep . || fail "$archive: not all is root's"
    # Flat: nothing but the directory itself has a slash at the end or within.
    ! awk '{ print $6 }' "$work/list" | sed 's,^\./,,' | grep / || fail "$archive: directories"
    tar -xzf "$archive" -C "$root"
    # As whoever updates a node does it: over what is there.
    tar -xzf "$archive" -C "$root"
    names=$(find "$root" -samefile "$root/trestle" -printf '%f\n' | sort)
    for name in bridge host-local loopback portmap; do grep -qx "$name" <<<"$names" || fail "$archive: $name is no link to trestle"; done
    [ "$(find "$root" -type f ! -name 'LICENSE*' ! -samefile "$root/trestle" | wc -l)" -eq 0 ] || fail "$archive: other files"
    for licence in LICENSE LICENSES-of-crates.txt; do [ -s "$root/$licence" ] || fail "$archive: no $licence"; done
    [ "$(find "$root" -type f ! -perm 0755 ! -perm 0644 | wc -l)" -eq 0 ] || fail "$archive: modes"
    binary "$root/trestle"
    bill=${archive%.tgz}.cdx.json
    jq -e '.bomFormat == "CycloneDX" and .metadata.component.name == "trestle" and ([.components[].name] | index("rtnetlink"))' "$bill" \
        >/dev/null || fail "$bill: no bill of materials"
    ! grep -q -F -e "$PWD" "$bill" || fail "$bill: a path of this machine"
    checked=$((checked + 1))
done
for archive in "$out"/trestle-v*-doc.tgz; do
    [ -f "$archive" ] || continue
    tar -tzf "$archive" >"$work/list"
    for file in man/trestle.1 completions/trestle.bash systemd/trestle-repair.service networkd/10-trestle.network README.md; do
        grep -qx "./$file" "$work/list" || fail "$archive: no $file"
    done
    checked=$((checked + 1))
done
for image in "$out"/trestle-node-linux-*.oci.tar; do
    [ -f "$image" ] || continue
    root=$work/${image##*/}
    mkdir -p "$root/layer"
    tar -xf "$image" -C "$root"
    for blob in "$root"/blobs/sha256/*; do
        [ "$(sha256sum "$blob" | cut -d' ' -f1)" = "${blob##*/}" ] || fail "$image: ${blob##*/} is another content's name"
    done
    digest() { jq -r "$1" "$2" | sed 's/^sha256://'; }
    manifest=$root/blobs/sha256/$(digest '.manifests[0].digest' "$root/index.json")
    config=$root/blobs/sha256/$(digest .config.digest "$manifest")
    layer=$root/blobs/sha256/$(digest '.layers[0].digest' "$manifest")
    [ "$(gzip -dc "$layer" | sha256sum | cut -d' ' -f1)" = "$(digest '.rootfs.diff_ids[0]' "$config")" ] || fail "$image: diff_ids"
    case ${image##*/} in *-linux-x86_64-*) expected=amd64 ;; *-linux-aarch64-*) expected=arm64 ;; *) expected=unknown ;; esac
    [ "$(jq -r .architecture "$config")" = "$expected" ] || fail "$image: for $(jq -r .architecture "$config")"
    tar -xzf "$layer" -C "$root/layer"
    files=$(cd "$root/layer" && find . -type f | sort | tr '\n' ' ')
    [ "$files" = "./bin/trestle ./bin/trestle-node ./usr/share/doc/trestle/LICENSE ./usr/share/doc/trestle/LICENSES " ] || fail "$image: $files"
    for file in "$root"/layer/bin/*; do binary "$file"; done
    checked=$((checked + 1))
done
[ "$checked" -gt 0 ] || fail "nothing in $out"
echo "archives: $checked files are as RELEASING.md says"
