#!/usr/bin/env bash
# obtain.sh - fetch what the conformance suite is driven by and compared with.
#
# Everything comes from Debian's archive and is only unpacked into one directory; nothing is installed and
# /etc/apt is only read. The directory is $TRESTLE_TOOLS, or target/conformance-tools of this workspace:
#
#   cnitool-old/cnitool   cnitool of bookworm's source package (add, check, del; specification 1.0.0)
#   cnitool-new/cnitool   cnitool of sid's source package (gc and status as well; specification 1.1.0)
#   plugins-new/          the Go reference plugins of sid, the release trestle is compared with
#   plugins-old/          the Go reference plugins of bookworm, the release users upgrade from
#   dhcp-servers/usr/     dnsmasq and ISC's dhcpd of bookworm, with libraries a small machine may lack
#
# Each has a file VERSION, written last: a directory that has one is complete and is left alone. The binary
# packages of cnitool hold only its library, hence the build from source, with a Go that is unpacked beside it.
# GOPATH mode with Debian's own golang-*-dev packages: no module proxy is ever asked.
#
# Packages are verified by apt with Debian's archive keyring. Status: 0 when everything is there, 1 when a
# part is missing (stderr says which and why), 2 when nothing could be tried.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
tools=${TRESTLE_TOOLS:-$(cd "$here/../.." && pwd)/target/conformance-tools}
parts=(plugins-new plugins-old cnitool-old cnitool-new dhcp-servers)
# What is worth a gigabyte and serves no more when all parts are there: apt's indexes, compilers.
scaffold=(apt xz go-bookworm go-bookworm-backports)
package=golang-github-appc-cni
default_mirror=http://deb.debian.org/debian
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

say() { echo "obtain: $*" >&2; }
die() { say "$*"; exit 2; }

complete() { [ -s "$tools/$1/VERSION" ]; }

all_complete() {
    local part
    for part in "${parts[@]}"; do complete "$part" || return 1; done
}

# The URIs of the machine's own Debian archive, one a line, from both formats of apt's source lists. A security
# archive, a CD or a third party's repository doesn't carry our suites.
configured_mirrors() {
    local etc=${TRESTLE_APT_DIR:-/etc/apt}
    {
        cat "$etc"/sources.list "$etc"/sources.list.d/*.list 2>/dev/null |
            sed -n 's/^[[:space:]]*deb[[:space:]]\+\(\[[^]]*\][[:space:]]*\)\?\([^[:space:]]\+\).*/\2/p'
        # A stanza's field may be continued on lines that start with a space.
        cat "$etc"/sources.list.d/*.sources 2>/dev/null |
            awk '/^[Uu][Rr][Ii][Ss]:/ { inside = 1; sub(/^[^:]*:/, ""); print; next }
                 /^[[:space:]]/ && inside { print; next }
                 { inside = 0 }' | tr -s ' \t' '\n\n'
    } | sed 's,/*$,,' | grep -E '^(https?|mirror(\+[a-z]+)?|file|copy):' |
        grep -E '/debian$|/archive/debian/|debian\.list$' | grep -v security | awk '!seen[$0]++' || true
}

# Architectures that apt knows, as apt.conf spells them; empty for the machine's own. For a script that reads this one.
architectures=

# apt SUITE COMMAND…: apt-get with a state of its own for that suite.
apt() {
    local suite=$1; shift
    # -c is read after the machine's own files, whose proxies and credentials keep their effect.
    apt-get -q -c "$tools/apt/$suite/apt.conf" "$@"
}

apt_state() {
    local suite=$1 mirror=$2 dir="$tools/apt/$1"
    mkdir -p "$dir/lists/partial" "$dir/cache/archives/partial" "$dir/parts"
    printf '%s [signed-by=%s] %s %s main\n' \
        deb "$keyring" "$mirror" "$suite" deb-src "$keyring" "$mirror" "$suite" >"$dir/sources.list"
    cat >"$dir/apt.conf" <<CONF
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Post-Invoke;
#clear Acquire::IndexTargets::deb::DEP-11;
${architectures:+APT::Architectures { $architectures \};}
Dir::Etc::sourcelist "$dir/sources.list";
Dir::Etc::sourceparts "$dir/parts";
Dir::State::lists "$dir/lists";
Dir::Cache "$dir/cache";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
APT::Sandbox::User "root";
APT::Get::List-Cleanup "false";
Acquire::Languages "none";
Acquire::Retries "3";
Acquire::http::Timeout "30";
Acquire::Check-Valid-Until "false";
CONF
}

# Read the suite's index once a run, from the first mirror that has it.
ready_suites='' missing_suites='' dead_mirrors=''
ensure_suite() {
    local suite=$1 mirror log="$tools/apt/$1.log"
    case " $ready_suites " in *" $suite "*) return 0 ;; esac
    case " $missing_suites " in *" $suite "*) return 1 ;; esac
    for mirror in $( { configured_mirrors; echo "$default_mirror"; } | awk '!seen[$0]++'); do
        case " $dead_mirrors " in *" $mirror "*) continue ;; esac
        apt_state "$suite" "$mirror"
        say "reading the index of $suite from $mirror"
        if update_suite "$suite" "$log"; then
            ready_suites="$ready_suites $suite"
            return 0
        fi
        # Then there is no use in asking it for other suites.
        ! grep -qE "$unreachable" "$log" || dead_mirrors="$dead_mirrors $mirror"
    done
    say "no mirror gave the index of $suite"
    missing_suites="$missing_suites $suite"
    return 1
}

unreachable='failure resolving|Could not (resolve|connect)|[Uu]nable to connect|Network is unreachable|timed out'

# Twice, because a mirror may be in the middle of being renewed.
update_suite() {
    local suite=$1 log=$2 attempt
    for attempt in 1 2; do
        # apt-get update ends with 0 although an index is missing; the option makes it an error.
        apt "$suite" update -o APT::Update::Error-Mode=any >"$log" 2>&1 && return 0
        say "attempt $attempt: $(grep -E '^E:' "$log" | head -1)"
        sleep 2
    done
    return 1
}

# fetch_binary SUITE DIR PACKAGE…: download and unpack binary packages into DIR; leaves $debs, where they lie.
debs=
fetch_binary() {
    local suite=$1 into=$2 deb; shift 2
    ensure_suite "$suite" || return 1
    debs=$(mktemp -d "$work/debs.XXXXXX")
    (cd "$debs" && apt "$suite" download "$@" >log 2>&1) ||
        { say "download $* from $suite: $(tail -2 "$debs/log" | tr '\n' ' ')"; return 1; }
    mkdir -p "$into"
    for deb in "$debs"/*.deb; do
        dpkg -x "$deb" "$into" || { say "unpack $deb failed"; return 1; }
    done
}

# The version in the name of the one archive in DIR that belongs to PACKAGE.
version_of() {
    local dir=$1 name=$2
    find "$dir" -name "${name}_*" | head -1 |
        sed -e 's,.*/[^_]*_,,' -e 's,\.orig\.tar\..*$,,' -e 's,_[a-z0-9]*\.deb$,,' -e 's,%3a,:,'
}

# Put a finished directory under its final name; VERSION inside makes it count.
publish() {
    local staged=$1 part=$2 version=$3
    printf '%s\n' "$version" >"$staged/VERSION"
    chmod 0755 "$staged"
    rm -rf "${tools:?}/$part"
    mv "$staged" "$tools/$part"
    say "$part: $version"
}

obtain_plugins() {
    local part=$1 suite=$2 root version
    root=$(mktemp -d "$work/plugins.XXXXXX")
    fetch_binary "$suite" "$root" containernetworking-plugins || return 1
    version=$(version_of "$debs" containernetworking-plugins)
    [ -x "$root/usr/lib/cni/bridge" ] || { say "containernetworking-plugins of $suite has no bridge"; return 1; }
    # Debian's package brings the plugins alone; run one to see that this machine can.
    CNI_COMMAND=VERSION "$root/usr/lib/cni/loopback" </dev/null >/dev/null ||
        { say "the plugins of $suite don't run on this machine"; return 1; }
    publish "$root/usr/lib/cni" "$part" "$version"
}

# What dnsmasq is linked with beside the C library comes along.
dhcp_servers=(
    dnsmasq-base isc-dhcp-server libdbus-1-3 libidn2-0 libunistring2 libnetfilter-conntrack3 libnfnetlink0 libmnl0
    libnettle8 libhogweed6 libgmp10 liblua5.4-0
)
obtain_dhcp_servers() {
    local root version
    root=$(mktemp -d "$work/dhcp.XXXXXX")
    # With the suite, because a newer version that is installed here would be wanted otherwise.
    fetch_binary bookworm "$root" "${dhcp_servers[@]/%//bookworm}" || return 1
    mkdir -p "$root/usr/lib" && cp -a "$root/lib/." "$root/usr/lib/" && rm -rf "$root/lib" "$root"/usr/share || return 1
    version="dnsmasq $(version_of "$debs" dnsmasq-base), dhcpd $(version_of "$debs" isc-dhcp-server)"
    publish "$root" dhcp-servers "$version"
}

# fetch_go SUITE: the Go compiler of that suite; sets $goroot.
fetch_go() {
    local suite=$1 root="$tools/go-$1" series
    if [ ! -e "$root/.complete" ]; then
        ensure_suite "$suite" || return 1
        series=$(apt_cache "$suite" depends golang-go | sed -n 's/.*Depends: golang-\([0-9.]*\)-go$/\1/p' | head -1)
        [ -n "$series" ] || { say "$suite has no golang-go"; return 1; }
        rm -rf "$root"
        say "unpacking Go $series of $suite"
        fetch_binary "$suite" "$root" "golang-$series-go" "golang-$series-src" || return 1
        echo "$series" >"$root/.complete"
    fi
    goroot=$root/usr/lib/go-$(cat "$root/.complete")
}

apt_cache() {
    local suite=$1; shift
    apt-cache -q -c "$tools/apt/$suite/apt.conf" "$@"
}

# xz is in no essential package, and source archives are compressed with it.
ensure_xz() {
    command -v xz >/dev/null && return 0
    fetch_binary bookworm "$tools/xz" xz-utils || return 1
    PATH=$tools/xz/usr/bin:$PATH
}

# obtain_cnitool PART SUITE GO_SUITE DEV_PACKAGE…: build cnitool of SUITE's source package with GO_SUITE's Go.
obtain_cnitool() {
    local part=$1 suite=$2 go_suite=$3 gopath source version out; shift 3
    gopath=$(mktemp -d "$work/gopath.XXXXXX")
    ensure_suite "$suite" && ensure_xz && fetch_go "$go_suite" || return 1
    source=$(mktemp -d "$work/source.XXXXXX")
    # The original archive is all that is wanted; apt checks it against the signed index.
    (cd "$source" && apt "$suite" source --tar-only --only-source "$package" >log 2>&1) ||
        { say "download the source of $package from $suite: $(tail -2 "$source/log" | tr '\n' ' ')"; return 1; }
    version=$(version_of "$source" "$package")
    out=$gopath/src/github.com/containernetworking/cni
    mkdir -p "$out"
    tar -xf "$source/$package"_*.orig.tar.* -C "$out" --strip-components=1 || return 1
    if [ $# -gt 0 ]; then
        fetch_binary "$suite" "$gopath/debian" "$@" || return 1
        cp -r "$gopath/debian/usr/share/gocode/src/." "$gopath/src/" || return 1
    fi
    say "building cnitool $version with $("$goroot/bin/go" version | cut -d' ' -f3)"
    mkdir "$gopath/out"
    (cd "$out/cnitool" && env -u GOFLAGS -u GOBIN GOROOT="$goroot" GOPATH="$gopath" GO111MODULE=off GOTOOLCHAIN=local \
        GOPROXY=off CGO_ENABLED=0 GOCACHE="$work/gocache" HOME="$work" \
        "$goroot/bin/go" build -o "$gopath/out/cnitool" . >&2) ||
        { say "cnitool $version doesn't build"; return 1; }
    publish "$gopath/out" "$part" "$version"
}

obtain() {
    case $1 in
        plugins-new) obtain_plugins plugins-new sid ;;
        plugins-old) obtain_plugins plugins-old bookworm ;;
        dhcp-servers) obtain_dhcp_servers ;;
        cnitool-old) obtain_cnitool cnitool-old bookworm bookworm ;;
        # Its Go must be 1.21 or newer; bookworm-backports' runs on any bookworm.
        cnitool-new) obtain_cnitool cnitool-new sid bookworm-backports ;;
    esac
}

main() {
    local part missing=()
    all_complete && exit 0
    for part in apt-get dpkg flock tar awk; do
        command -v "$part" >/dev/null || die "$part is missing; this script needs Debian or a derivative of it"
    done
    [ -r "$keyring" ] || die "no $keyring to verify packages with; install debian-archive-keyring"
    mkdir -p "$tools/apt"
    tools=$(cd "$tools" && pwd)
    exec 9>"$tools/lock"
    flock -n 9 || { say "waiting for another run to finish"; flock 9; }
    work=$(mktemp -d "$tools/work.XXXXXX")
    trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
    for part in "${parts[@]}"; do
        complete "$part" && continue
        # One part's failure leaves the others their chance.
        obtain "$part" || { say "$part could not be had"; missing+=("$part"); }
    done
    [ ${#missing[@]} -eq 0 ] || { say "missing: ${missing[*]}"; exit 1; }
    for part in "${scaffold[@]}"; do
        [ ! -e "$tools/$part" ] || { chmod -R u+w "$tools/$part" && rm -rf "${tools:?}/$part"; }
    done
}

# Another script may read this one for its functions, with parts and an obtain() of its own.
[ "${BASH_SOURCE[0]}" != "$0" ] || main "$@"
