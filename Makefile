# Thin: each target is a script or one cargo call.
.PHONY: help setup demo test lint lab bench crs fuzz clean

help:
	@echo "make setup   install packages and tools (Debian)"
	@echo "make demo    stop a real Log4Shell in the kernel, end to end"
	@echo "make test    setup, lint, and every test"
	@echo "make lab     exploits by the thousand among benign load  -> target/figures/lab.json"
	@echo "make bench   side-by-side measurements                   -> target/figures/bench.json"

setup:
	scripts/setup

lint:
	scripts/lint

test: setup lint
	cargo test --workspace --locked
