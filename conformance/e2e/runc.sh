#!/bin/sh
# runc.sh - runc, with containers that have no limits of resources.
#
# containerd gives every pod a share of the CPU, and from version 2 on can't be told not to. runc then wants a
# controller that the cgroup of a confined machine doesn't have. So the limits are removed of the bundle before
# the real runc, the first one in the path, sees it.
set -eu
bundle='' before=''
for argument; do
    [ "$before" != --bundle ] || bundle=$argument
    before=$argument
done
if [ -n "$bundle" ]; then
    jq 'del(.linux.resources)' "$bundle/config.json" >"$bundle/config.json.new"
    mv "$bundle/config.json.new" "$bundle/config.json"
fi
exec runc "$@"
