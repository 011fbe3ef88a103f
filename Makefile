# SPDX-License-Identifier: Apache-2.0
# What there is to do with this project. `make setup` prepares a fresh Debian 12 or 13; `make demo` shows what it is about.

BIN := .venv/bin
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYTHON

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

setup: .venv/installed bpf  ## system packages, .venv with polycubed and polycubectl, data planes; again: only what changed
	@echo "ready: 'make demo' shows it at work, 'make shell' gives you a private world to try it in"

build/packages: tools/packages
	tools/packages
	@mkdir -p build && touch $@

.venv/made: build/packages
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { rm -rf .venv && "$$(tools/python)" -m venv .venv; }
	@touch $@

.venv/installed: .venv/made pyproject.toml hatch_build.py
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

src/polycube/bpf/_libbpf.py: src/polycube/bpf/abi.h src/polycube/bpf/build.py | .venv/installed
	@$(BIN)/python src/polycube/bpf/build.py >/dev/null && touch $@

bpf: .venv/installed src/polycube/bpf/_libbpf.py  ## compile data planes that changed (clang -Wall -Werror)
	@$(BIN)/python -m polycube.compiler.build

demo: setup  ## three hosts, a bridge, a router, a transparent cube; traffic while the daemon is killed (half a minute)
	@tools/lab $(CURDIR)/$(BIN)/python tools/demo.py

shell: setup  ## a shell in a private world with a running polycubed
	@tools/lab

lint: setup  ## style, types, layers
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint bpf  ## everything but soak tests and benchmarks, in two processes; what fails has one more chance, and is listed
	$(SUDO) $(BIN)/python -m pytest -n 2 --dist loadfile --reruns 1 --reruns-delay 2 -rR

soak: setup  ## the long runs
	$(SUDO) $(BIN)/python -m pytest -m soak --timeout 3600

docs: setup  ## the documentation as a site, build/site
	@$(BIN)/python tools/site.py

bench: setup  ## measurements against hand-written programs and what the kernel has
	$(SUDO) $(BIN)/python bench/run.py

clean:  ## remove what was built; .venv goes, too
	$(SUDO) rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	$(SUDO) find src tests examples -name '*.bc' -delete -o -name _libbpf.py -delete

.PHONY: help setup bpf demo shell lint test soak docs bench clean
