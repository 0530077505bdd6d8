#!/usr/bin/env bash
# release.sh [OUT] - make the files of a release in OUT (target/dist unless given), for each architecture of $ARCHS (x86_64 and
# aarch64 unless set):
#
#   trestle-linux-ARCH-vX.Y.Z.tgz           the plugins as the Go plugins' archives have them: flat, root:root, one binary
#                                           under every plugin's name (hard links), licences
#   trestle-linux-ARCH-vX.Y.Z.cdx.json      what is inside (CycloneDX)
#   trestle-node-linux-ARCH-vX.Y.Z.oci.tar  the image for a cluster's nodes (image.sh)
#   trestle-vX.Y.Z-doc.tgz                  man pages, completions, the files of dist/
#   sha256sums, sha512sums                  of all those
#
# $PARTS, unless it is unset, names those that are wanted: "plugins image doc".
#
# The same commit and the same compiler give the same bytes, wherever the checkout lies: paths are mapped away, times are that of the
# commit ($SOURCE_DATE_EPOCH, if it is set).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
top=$PWD
out=${1:-$top/target/dist}
archs=${ARCHS:-x86_64 aarch64}
parts=" ${PARTS:-plugins image doc} "
tools=$(realpath -m "${TRESTLE_TOOLS:-target/conformance-tools}")
host=$(rustc -vV | sed -n 's/^host: //p')
version=$(cargo metadata --format-version 1 --no-deps --offline | jq -r '.packages[] | select(.name == "plugins").version')
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH CARGO_TERM_COLOR=never
# Directories and files of the archives are for everybody to read, whatever this shell's umask is.
umask 022

wanted() { [[ $parts = *" $1 "* ]]; }
say() { echo "release: $*" >&2; }

# tuple_of ARCH: what the plugins are built for.
tuple_of() { conformance/tools/plugins-tuple.sh "$1-unknown-linux-gnu"; }

# build ARCH TUPLE PACKAGE BINARY: a static binary; sets $binary.
binary=
build() {
    local tuple=$2 environment=()
    if [ "$1" != "${host%%-*}" ]; then
        environment+=("CARGO_TARGET_$(tr 'a-z-' 'A-Z_' <<<"$tuple")_LINKER=$1-linux-gnu-gcc" "CC_${tuple//-/_}=$1-linux-gnu-gcc")
        # Where rustup has no libraries for it, Debian's compiler has.
        [ -e "$(rustc --print sysroot)/lib/rustlib/$tuple/lib" ] || environment+=("RUSTC=$tools/cross/rustc")
    fi
    # Flags of the environment replace those of .cargo/config.toml, hence the static one again.
    environment+=("RUSTFLAGS=-C target-feature=+crt-static --remap-path-prefix=$top=/trestle \
--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo")
    # What a crate has in C or assembly is compiled in its own directory, whose name is not for the binary either.
    environment+=("CFLAGS=-ffile-prefix-map=$top=/trestle -ffile-prefix-map=${CARGO_HOME:-$HOME/.cargo}=/cargo")
    say "building $4 for $1"
    env "${environment[@]}" cargo build --release --locked --package "$3" --bin "$4" --target "$tuple" \
        --target-dir "$top/target/release-build" >&2
    binary=$top/target/release-build/$tuple/release/$4
}

# archive FILE DIRECTORY: a tar archive that depends on nothing but names and contents.
archive() {
    tar --sort=name --owner=root:0 --group=root:0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" --format=gnu \
        -C "$2" -cf - . | gzip -9n >"$1"
}

# The names that the binary serves, by the table that it was built from.
plugin_names() {
    "$top/target/release-build/$(tuple_of "${host%%-*}")/release/trestle" version | sed -n 's/^plugins: //p' | tr -d ','
}

# sbom ARCH FILE: CycloneDX, without a path of this machine.
sbom() {
    "$tools/cross/cargo-cyclonedx" cyclonedx --manifest-path plugins/Cargo.toml --format json --spec-version 1.5 \
        --no-build-deps --target "$(tuple_of "$1")" --override-filename sbom-of-release -qq
    # It leaves such a file beside every manifest of the workspace; the crate is called otherwise than the program.
    jq --sort-keys 'del(.serialNumber) | .metadata.component.name = "trestle"' plugins/sbom-of-release.json | sed "s,$top,/trestle,g" >"$2"
    rm -f ./*/sbom-of-release.json
}

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
rm -rf "$out"
mkdir -p "$out"
cargo fetch --locked --quiet

# plugins_of ARCH: their archive and what is in it.
plugins_of() {
    local root=$stage/$1
    mkdir "$root"
    install -m 0755 "$binary" "$root/trestle"
    for name in $(plugin_names); do ln "$root/trestle" "$root/$name"; done
    install -m 0644 LICENSE "$root/LICENSE"
    dist/licences.sh "$(tuple_of "$1")" plugins >"$root/LICENSES-of-crates.txt"
    archive "$out/trestle-linux-$1-v$version.tgz" "$root"
    sbom "$1" "$out/trestle-linux-$1-v$version.cdx.json"
}

# image_of ARCH: the agent beside the plugins.
image_of() {
    local plugins=$binary
    build "$1" "$1-unknown-linux-gnu" trestle-node trestle-node
    dist/licences.sh "$(tuple_of "$1")" plugins trestle-node >"$stage/licences"
    dist/image.sh "$1" "$plugins" "$binary" "$stage/licences" "$out/trestle-node-linux-$1-v$version.oci.tar"
}

# Man pages, completions, and every directory of dist/ that is an operator's.
documents() {
    say "writing man pages and completions"
    rm -rf "$top/target/dist-doc"
    cargo run --quiet --locked --package plugins --example manual -- "$top/target/dist-doc" >&2
    cp -r "$top/target/dist-doc" "$stage/doc"
    find dist -mindepth 1 -maxdepth 1 -type d ! -name debian -exec cp -r -t "$stage/doc" {} +
    cp dist/README.md "$stage/doc/"
    archive "$out/trestle-v$version-doc.tgz" "$stage/doc"
}

build "${host%%-*}" "$(tuple_of "${host%%-*}")" plugins trestle
for arch in $archs; do
    build "$arch" "$(tuple_of "$arch")" plugins trestle
    ! wanted plugins || plugins_of "$arch"
    ! wanted image || image_of "$arch"
done
! wanted doc || documents
(cd "$out" && sha256sum -- trestle-* >sha256sums && sha512sum -- trestle-* >sha512sums)
say "made in $out:"
ls -l "$out" >&2
