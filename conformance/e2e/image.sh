#!/usr/bin/env bash
# image.sh BUSYBOX OUT - make a container image of a static busybox, as an archive that both ctr and podman load.
#
# Its name is localhost/busybox:e2e. By default it sleeps, so it does for a pod's pause container as well and nothing
# is ever pulled from a registry. `httpd -f -p 80 -h /www` serves HTTP on every address of both families, and answers
# GET /cgi-bin/whoami with the address it saw the request come from.
set -euo pipefail
busybox=$1 out=$2

work=$(mktemp -d "$out.XXXXXX")
trap 'rm -rf "$work"' EXIT
root=$work/root
mkdir -p "$root"/{bin,etc,proc,sys,dev,tmp,root,www/cgi-bin}
cp "$busybox" "$root/bin/busybox"
for applet in sh sleep httpd wget nc cat echo ip; do ln -s busybox "$root/bin/$applet"; done
echo 'root:x:0:0:root:/root:/bin/sh' >"$root/etc/passwd"
echo 'root:x:0:' >"$root/etc/group"
cat >"$root/www/cgi-bin/whoami" <<'CGI'
#!/bin/sh
printf 'Content-Type: text/plain\r\n\r\n%s' "$REMOTE_ADDR"
CGI
chmod 0755 "$root/www/cgi-bin/whoami"

# One layer, made the same each time.
tar -C "$root" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -cf "$work/layer.tar" .
layer=$(sha256sum "$work/layer.tar" | cut -d' ' -f1)
case $(uname -m) in x86_64) arch=amd64 ;; aarch64) arch=arm64 ;; *) arch=$(uname -m) ;; esac
cat >"$work/config.json" <<JSON
{"architecture":"$arch","os":"linux","created":"1970-01-01T00:00:00Z",
 "config":{"Env":["PATH=/bin"],"WorkingDir":"/","Cmd":["/bin/sleep","1000000"]},
 "rootfs":{"type":"layers","diff_ids":["sha256:$layer"]}}
JSON
echo '[{"Config":"config.json","RepoTags":["localhost/busybox:e2e"],"Layers":["layer.tar"]}]' >"$work/manifest.json"
tar -C "$work" -cf "$work/image.tar" manifest.json config.json layer.tar
mv "$work/image.tar" "$out"
