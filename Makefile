# What people run. Each target installs what it needs; a second run costs little.
.PHONY: all setup build release demo test check audit install bench clean

PREFIX ?= $(HOME)/.local
CARGO ?= cargo

all: build

setup:            ## install the programs that the tests and the demo use (Debian)
	@scripts/setup

build:            ## debug build of everything
	$(CARGO) build --locked --workspace

release:          ## the two programs, as they ship
	$(CARGO) build --locked --release -p kiln -p kilnd

demo: setup release   ## build a multi-platform example from nothing, push it, check it with other programs
	@scripts/demo

test: setup build ## all tests, with the real programs
	$(CARGO) test --locked --workspace --no-fail-fast

check:            ## formatting, lints, layering, licences, documents
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	$(CARGO) run --locked --quiet -p kiln-house

audit:            ## licences and advisories with cargo-deny (fetches its database)
	cargo deny check

install: release  ## kiln and kilnd into PREFIX/bin, and the Docker CLI plugin for this user
	install -D -m 755 target/release/kiln $(DESTDIR)$(PREFIX)/bin/kiln
	install -D -m 755 target/release/kilnd $(DESTDIR)$(PREFIX)/bin/kilnd
	mkdir -p $(DESTDIR)$(HOME)/.docker/cli-plugins
	ln -sf $(PREFIX)/bin/kiln $(DESTDIR)$(HOME)/.docker/cli-plugins/docker-buildx

bench: release    ## time Kiln and the peers on PATH
	bench/run

clean:
	$(CARGO) clean
