#!/bin/sh
# plugins-tuple.sh TUPLE - the target that the plugins are built for where the given one is asked for: with musl in the place of
# glibc on x86_64, if the compiler has libraries for that.
set -eu
musl=${1%-gnu}-musl
case $1 in
x86_64-*-linux-gnu)
    libraries=$("${RUSTC:-rustc}" --print target-libdir --target "$musl" 2>/dev/null || :)
    [ ! -d "$libraries" ] || set -- "$musl"
    ;;
esac
echo "$1"
