#!/usr/bin/env bash
# image.sh ARCH TRESTLE NODE LICENCES OUT - pack an image for a cluster's nodes, without Docker: an OCI archive (image layout 1.0 in a tar
# file) that `ctr images import`, `podman load`, `skopeo copy oci-archive:` and kind take.
#
#   ARCH      x86_64 or aarch64
#   TRESTLE   the static plugin binary, which becomes /bin/trestle
#   NODE      the static agent, which becomes /bin/trestle-node and is what the image runs
#   LICENCES  a text file, which becomes /usr/share/doc/trestle/LICENSES
#
# There is nothing else inside, no shell and no library. The image is called $IMAGE (localhost/trestle-node:vX.Y.Z unless set). Times are
# $SOURCE_DATE_EPOCH (that of the commit unless set), so the same files give the same bytes.
set -euo pipefail
arch=$1 trestle=$2 node=$3 licences=$4 out=$5
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$top" log -1 --format=%ct)}
version=$(awk -F'"' '/^version = / { print $2; exit }' "$top/Cargo.toml")
image=${IMAGE:-localhost/trestle-node:v$version}
case $arch in x86_64) platform=amd64 ;; aarch64) platform=arm64 ;; *) platform=$arch ;; esac
umask 022

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# pack DIRECTORY: a tar archive on stdout that depends on nothing but names, modes and contents.
pack() {
    tar --sort=name --owner=root:0 --group=root:0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" --format=gnu -C "$1" -cf - .
}

root=$work/root
mkdir -p "$root/bin" "$root/usr/share/doc/trestle"
install -m 0755 "$trestle" "$root/bin/trestle"
install -m 0755 "$node" "$root/bin/trestle-node"
install -m 0644 "$top/LICENSE" "$root/usr/share/doc/trestle/LICENSE"
install -m 0644 "$licences" "$root/usr/share/doc/trestle/LICENSES"
for binary in "$root"/bin/*; do
    if readelf --wide --program-headers "$binary" 2>/dev/null | grep -q INTERP; then
        echo "image: $(basename "$binary") is not static: the image has no libraries" >&2
        exit 1
    fi
done

layout=$work/layout
mkdir -p "$layout/blobs/sha256"
# blob FILE: put it into the layout; prints its descriptor's digest and size.
blob() {
    local digest
    digest=$(sha256sum "$1" | cut -d' ' -f1)
    cp "$1" "$layout/blobs/sha256/$digest"
    printf '"digest": "sha256:%s", "size": %s' "$digest" "$(stat -c %s "$1")"
}

pack "$root" >"$work/layer.tar"
gzip -6n <"$work/layer.tar" >"$work/layer.tar.gz"
created=$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)
cat >"$work/config.json" <<JSON
{"architecture": "$platform", "os": "linux", "created": "$created",
 "config": {"Entrypoint": ["/bin/trestle-node"], "Env": ["PATH=/bin"], "WorkingDir": "/",
            "Labels": {"org.opencontainers.image.title": "trestle-node", "org.opencontainers.image.version": "$version",
                       "org.opencontainers.image.licenses": "Apache-2.0"}},
 "rootfs": {"type": "layers", "diff_ids": ["sha256:$(sha256sum "$work/layer.tar" | cut -d' ' -f1)"]},
 "history": [{"created": "$created", "created_by": "dist/image.sh"}]}
JSON
cat >"$work/manifest.json" <<JSON
{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
 "config": {"mediaType": "application/vnd.oci.image.config.v1+json", $(blob "$work/config.json")},
 "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", $(blob "$work/layer.tar.gz")}]}
JSON
cat >"$layout/index.json" <<JSON
{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
 "manifests": [{"mediaType": "application/vnd.oci.image.manifest.v1+json", $(blob "$work/manifest.json"),
                "platform": {"architecture": "$platform", "os": "linux"},
                "annotations": {"io.containerd.image.name": "$image", "org.opencontainers.image.ref.name": "v$version"}}]}
JSON
echo '{"imageLayoutVersion": "1.0.0"}' >"$layout/oci-layout"
pack "$layout" >"$out"
echo "image: $image for $arch, $(stat -c %s "$out") bytes, in $out" >&2
