# Jacamar CI. `make help` lists what there is.
SHELL = /bin/bash
.SHELLFLAGS = -euo pipefail -c
.DEFAULT_GOAL = help
.PHONY: help build install test bench demo lint clean setup

PREFIX ?= /opt/jacamar
DESTDIR ?=
PROGRAMS = jacamar-auth jacamar

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## the packages that building and testing need (as root it installs them)
	@hack/setup

build: ## the programs, in target/release
	@hack/rust
	cargo build --release --locked -p jacamar-auth -p jacamar-runner-glue

install: build ## the programs below $(PREFIX)/bin (PREFIX=/opt/jacamar, DESTDIR=)
	install -d -m 0755 "$(DESTDIR)$(PREFIX)/bin"
	install -m 0755 $(PROGRAMS:%=target/release/%) "$(DESTDIR)$(PREFIX)/bin"

lint: ## format and clippy
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

test: ## everything that CI runs: packages, programs, format, lints, all tests, the virtual machine
	@hack/test

demo: ## a complete job, from token to exit code, and then its plan in words
	@hack/demo

bench: build ## exec against bare spawn and bubblewrap, its control group, many jobs at once: of one run (as root)
	@hack/bench

clean: ## removes target
	cargo clean
