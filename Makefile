# Thin: each target is a script or one cargo call.
.PHONY: help setup demo lab ops bench crs kernels fuzz test lint deb

help:
	@echo "make setup   install packages and tools (Debian)"
	@echo "make demo    stop a real Log4Shell in the kernel, end to end -> target/figures/demo.json"
	@echo "make lab     exploits by the thousand among benign load      -> target/figures/lab.json,"
	@echo "             attacks that hide, bans that must not be, and   -> evasions.json, bans.json,"
	@echo "             who did it, on a dozen stacks                   -> attribution.json"
	@echo "make ops     swaps, outages, kills, upgrades, half an hour of load -> target/figures/ops.json"
	@echo "make bench   side-by-side measurements                       -> target/figures/bench.json"
	@echo "make crs     the Core Rule Set's own regression tests           -> target/figures/crs.json"
	@echo "make kernels Debian's kernels 6.1 and 6.12, booted under qemu    -> target/figures/kernels.json"
	@echo "make fuzz    every parser and the evaluator, a minute each (SECONDS=60)"
	@echo "make deb     a Debian package, installed here and purged          -> target/deb"
	@echo "make test    setup, lint, every test, ops for some minutes, units and manifests, a smoke"
	@echo "             run of each fuzz target, and make kernels"

setup:
	scripts/setup

demo: build-lab
	target/release/clew-lab demo

lab: build-lab
	scripts/lab-stacks
	@failed=0; for part in lab evasions storm bans attribution; do \
	  target/release/clew-lab $$part || failed=1; done; exit $$failed

ops: setup
	cargo build --release --locked -p clew -p clew-lab
	target/release/clew-lab ops

bench: setup
	scripts/lab-stacks gunicorn-gthread node
	cargo build --release --locked -p clew -p clew-benches
	target/release/clew-bench
	target/release/clew-bench-rules

crs: setup
	cargo build --release --locked -p clew
	scripts/crs

kernels: setup
	scripts/kernels

fuzz: setup
	scripts/fuzz $(or $(SECONDS),60)

.PHONY: build-lab
build-lab:
	scripts/setup --without-lint
	scripts/log4j
	cargo build --release --locked -p clew -p clew-lab

deb: setup
	scripts/deploy-check --package
	scripts/deb

lint:
	scripts/lint

test: setup
	scripts/lint
	cargo test --workspace --locked
	cargo build --locked -p clew -p clew-lab
	@# Ops waits more than it works: the fuzz targets are built meanwhile.
	nice scripts/fuzz build & builder=$$!; \
	  target/debug/clew-lab --clew target/debug/clew ops --short; status=$$?; \
	  wait $$builder && exit $$status
	scripts/deploy-check
	scripts/fuzz smoke
	scripts/kernels
