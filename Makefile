# SPDX-License-Identifier: Apache-2.0
# The one door for people: `make help` lists what it does. Kbuild is the
# kernel's file. Where a target is slow it says what it is at.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-print-directory
# The toolchain that go.mod names is fetched by go itself where it is newer.
export GOTOOLCHAIN ?= auto

BIN := build/bin
LAB := $(BIN)/lab
KERNELS := 6.1 6.12 new
# Programs that run in the lab or on a user's machine are static: the lab's
# tree has no Go and another libc.
PROGRAMS := ./daemon/vmctld ./monitor/vmx ./frontdoor/vmhttp ./tools/vmctl \
	./tools/lab ./tools/run ./tools/bench ./tools/tally ./tools/checkdeps \
	./tests/kabi/cost
GOBUILD := CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o $(BIN)/

# What a target needs is made in the order in which it stands.
.NOTPARALLEL:

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

.PHONY: run
run: setup build guest ## boot a guest through the whole chain, stay until Ctrl-C; CHECK=1: try it and end
	@$(LAB) prepare --kernel 6.12
	@exec $(BIN)/run $(if $(CHECK),--check)

.PHONY: test
test: setup-test build disk ## set up and run every test there is
	@$(LAB) prepare --kernel all
	@tests/run all

.PHONY: test-debug
test-debug: setup-test build kernel-debug ## run what there is for the kernel with sanitizers, an hour
	@JOBS=1 tests/run debug

.PHONY: cover-kmod
cover-kmod: setup-test build kernel-debug ## the same, and which lines of the module that ran: 90 % at least
	@COVER=1 JOBS=1 tests/run debug
	@go run ./tools/cover -least 90 build/test/*.cover

.PHONY: soak
soak: setup-test build disks ## boot a whole Debian 20 times, its installer, and other Debians: hours
	@JOBS=1 tests/run soak debians

.PHONY: fuzz
fuzz: ## run every fuzz target for a minute each; FUZZTIME=5m: for longer
	@tests/fuzz

.PHONY: test-quick
test-quick: setup-test build ## run what needs no kernel: what a developer runs all day
	@tests/run quick

.PHONY: check
check: setup-test build ## formatters, linters, import table, generated files
	@$(LAB) prepare --kernel all
	@tests/check

.PHONY: gen
gen: ui-modules ## make the generated files anew
	@tools/gen

.PHONY: kmod
kmod: setup-test $(LAB) ## build vmm.ko for the three kernels, without a warning
	@for k in $(KERNELS); do $(LAB) build-module --kernel $$k; done

.PHONY: kernel-debug
kernel-debug: setup-test $(LAB) ## build the kernel with sanitizers, once, a quarter of an hour
	@$(LAB) prepare --kernel debug

.PHONY: lab
lab: setup-test $(LAB) ## an interactive shell in the lab, with the module loaded
	@exec $(LAB) shell

.PHONY: bench
bench: setup-test build disk load ## measure against the peers, one table; writes build/bench.json
	@$(LAB) prepare --kernel 6.12
	@exec $(BIN)/bench

.PHONY: fmt
fmt: ## format what can be formatted
	@gofmt -w $$(git ls-files '*.go')
	@cd frontdoor/ui && npx --no-install eslint --fix src

.PHONY: clean
clean: ## remove what was built; the lab's trees stay in its cache
	@rm -rf build frontdoor/ui/node_modules tests/ui/node_modules
	@find frontdoor/ui/dist -mindepth 1 ! -name .gitkeep -delete 2>/dev/null || true

# ---- parts -----------------------------------------------------------------

.PHONY: setup setup-test build guest disk disks load ui ui-modules
setup:
	@tools/setup run

setup-test:
	@tools/setup test

# The interface comes first: vmhttp has it compiled in.
build: ui
	@echo "building the programs"
	@mkdir -p $(BIN)
	@$(GOBUILD) $(PROGRAMS)

# The lab alone needs no Node.
.PHONY: $(LAB)
$(LAB):
	@mkdir -p $(BIN)
	@$(GOBUILD) ./tools/lab

# The kernel and the initramfs of nested guests.
guest: $(LAB)
	@mkdir -p build/guest
	@$(LAB) initrd --out build/guest/initrd.img
	@$(LAB) initrd --out build/guest/virtio.img --modules --kernel 6.12

# A disk with a whole Debian for them, and those of the others.
disk: guest
	@$(LAB) disk --out build/guest/debian.img

disks: disk
	@$(LAB) disk --kernel 6.1 --out build/guest/debian-6.1.img
	@$(LAB) disk --kernel new --out build/guest/debian-new.img

# What guests do to be measured.
load: $(LAB)
	@mkdir -p build/guest
	@$(LAB) tree -- gcc -O2 -static -s -Wall -Wextra -Werror -o build/guest/load tools/bench/load/load.c

ui-modules: frontdoor/ui/node_modules/.package-lock.json

ui: frontdoor/ui/dist/index.html tests/ui/node_modules/.package-lock.json

frontdoor/ui/node_modules/.package-lock.json: frontdoor/ui/package-lock.json
	@echo "installing the interface's packages"
	@cd frontdoor/ui && npm ci --no-audit --no-fund --silent

tests/ui/node_modules/.package-lock.json: tests/ui/package-lock.json
	@cd tests/ui && npm ci --no-audit --no-fund --silent

frontdoor/ui/dist/index.html: frontdoor/ui/node_modules/.package-lock.json \
		$(shell find frontdoor/ui/src frontdoor/ui/public -type f 2>/dev/null) \
		$(wildcard frontdoor/ui/*.ts frontdoor/ui/*.html frontdoor/ui/*.json)
	@echo "building the interface"
	@cd frontdoor/ui && npm run --silent build
