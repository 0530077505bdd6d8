# What there is to do with this workspace. Run as root: the tests make network namespaces, and nothing else on
# the machine is touched.

TUPLE := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
# The name "host-tuple" of .cargo/config.toml is one that cargo knows from 1.91 on; older compilers are told what it stands for.
export CARGO_BUILD_TARGET := $(TUPLE)
# What the plugins are built for: musl, where its libraries are installed (`rustup target add x86_64-unknown-linux-musl`), since
# its programs start sooner. docs/decisions/static-binary.md
PLUGINS_TUPLE := $(shell conformance/tools/plugins-tuple.sh $(TUPLE))
BIN := $(CURDIR)/target/$(PLUGINS_TUPLE)/release/trestle

.PHONY: help build node check msrv test e2e upstream demo demo-services recordings faults fuzz bench dist deb dist-test image crates coverage mutants doc manual vm tools runtimes packages clean

help: ## show this list
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

build: ## the static release binary
	cargo build --release --package plugins --bin trestle --target $(PLUGINS_TUPLE)
	@ls -l $(BIN)

node: ## the static release binary of the cluster's agent
	cargo build --release --package trestle-node
	@ls -l $(CURDIR)/target/$(TUPLE)/release/trestle-node

check: ## formatting, lints and unit tests; fast, and needs no root
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo test --workspace --lib --bins --quiet
	conformance/tools/deny.sh

msrv: ## every crate and its tests compile with the oldest compiler that Cargo.toml promises; fetches it by rustup
	conformance/tools/msrv.sh

test: packages tools runtimes build ## everything, with the real kernel, cnitool and the release binary
	TRESTLE_BIN=$(BIN) TRESTLE_TOOLS_FETCH=no conformance/tools/run-tests.sh --workspace

e2e: packages tools runtimes build ## pods of containerd and containers of podman alone
	TRESTLE_BIN=$(BIN) TRESTLE_TOOLS_FETCH=no conformance/tools/run-tests.sh --package conformance --test e2e

upstream: packages tools runtimes ## put the conformance tests to the Go reference plugins
	TRESTLE_SUBJECT=go TRESTLE_TOOLS_FETCH=no conformance/tools/run-tests.sh --package conformance

faults: packages tools build ## every system call of ADD and DEL failed and killed at; takes half an hour, at low priority
	TRESTLE_FULL=1 TRESTLE_BIN=$(BIN) TRESTLE_TOOLS_FETCH=no nice -n 19 conformance/tools/run-tests.sh --package conformance --test conformance -- fault

FUZZ_SECONDS ?= 60
SEQUENCE_SECONDS ?= 300
fuzz: packages tools build ## hostile sequences of calls for SEQUENCE_SECONDS (300), then each fuzz target for FUZZ_SECONDS (60); the targets need a nightly toolchain and cargo-fuzz
	TRESTLE_SEQUENCES_SECONDS=$(SEQUENCE_SECONDS) TRESTLE_BIN=$(BIN) TRESTLE_TOOLS_FETCH=no conformance/tools/run-tests.sh --package conformance --test conformance -- sequences
	conformance/tools/fuzz.sh $(FUZZ_SECONDS)

demo: packages tools build ## two containers on a bridge, step by step
	TRESTLE_BIN=$(BIN) conformance/demo.sh

demo-services: packages tools build ## a Service on one node without and with bridge netfilter, and how doctor and trace name what is wrong
	TRESTLE_BIN=$(BIN) conformance/demo-services.sh

recordings: packages tools build ## draw docs/demo.svg and docs/demo-services.svg from a run of both demos
	for demo in demo demo-services; do \
		TRESTLE_BIN=$(BIN) conformance/tools/record.pl conformance/$$demo.sh >target/$$demo.svg && mv target/$$demo.svg docs/ || exit 1; \
	done

bench: packages tools build ## measure trestle, the Go plugins and the kernel's floor; BENCH=--publish refreshes docs/bench.svg
	TRESTLE_BIN=$(BIN) TRESTLE_TOOLS_FETCH=no cargo bench --package conformance --bench cni -- $(BENCH)

doc: ## the crates' documentation, in which no link may be broken
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

manual: ## man pages and completions, under target/dist-doc
	cargo run --quiet --package plugins --example manual -- target/dist-doc

dist: dist-packages ## the files of a release for x86_64 and aarch64, under target/dist; ARCHS="x86_64" for one
	dist/obtain.sh
	dist/release.sh

deb: dist ## the Debian package of that release
	dist/deb.sh

dist-test: deb ## the release is reproducible and laid out as promised, its units run, its package installs, upgrades and purges
	dist/test-archives.sh
	dist/test-aarch64.sh
	dist/test-package.sh
	dist/reproducible.sh

image: dist-packages ## the image of the cluster's agent for this machine's architecture (an OCI archive, without Docker), under target/image
	ARCHS=$(firstword $(subst -, ,$(TUPLE))) PARTS=image dist/release.sh target/image
	dist/test-archives.sh target/image

crates: ## the crates that others build on could be published as they are
	cargo publish --dry-run --package cni-conf --package cni-conformance

coverage: packages tools ## which lines the tests reach, by crate and file; COVERAGE="--package ipam" for one crate
	TRESTLE_TOOLS_FETCH=no conformance/tools/coverage.sh $(COVERAGE)

mutants: ## which small changes of cni-conf, ipam and the pure parts of plugins no test notices; needs cargo-mutants; MUTANTS="--file PATH" for less
	conformance/tools/mutants.sh $(MUTANTS)

vm: packages tools build ## under Debian's kernel, in a machine of QEMU, what this kernel lets nobody run; VM=FILTER for others
	TRESTLE_BIN=$(BIN) TRESTLE_TOOLS_FETCH=no conformance/tools/vm.sh $(VM)

tools: ## fetch cnitool and the Go plugins (unpacked under target, not installed)
	-@conformance/tools/obtain.sh

runtimes: ## fetch containerd, podman, firewalld and BIRD (unpacked under target, not installed)
	-@conformance/e2e/obtain.sh

dist-packages:
	@conformance/tools/install-packages.sh dist

packages: ## install the Debian packages that tests need, if any is missing
	@conformance/tools/install-packages.sh

clean: ## remove what was built
	cargo clean
