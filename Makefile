# What each step does stands in scripts/; `make` alone builds dist/lite.
SHELL := /bin/bash
.PHONY: build run test test-long vm-test conformance lint hooks fuzz race golden e2e chaos bench release release-check vuln clean

# For another architecture: make build GOARCH=arm64
BINARY = dist/lite$(if $(filter-out $(shell go env GOHOSTARCH),$(GOARCH)),-linux-$(GOARCH))

build:
	@scripts/setup
	@scripts/build/bundle
	@scripts/build/licenses
	. scripts/env && flags=$$(scripts/ldflags) && go build -ldflags "$$flags" -o $(BINARY) ./cmd/lite

run: build # make run ARGS="--data-dir /tmp/lite"
	dist/lite server $(ARGS)

test: build
	@scripts/test/run

# All that takes minutes: lint, fuzzing, the race detector, and databases and operators that others have written. Of
# these alone: make test-long RUN=TestLong/PostgreSQL
test-long: build
ifeq ($(RUN),)
	@scripts/lint
	@scripts/test/fuzz
	@scripts/test/race all
endif
	@scripts/test/images
	@scripts/test/run long '$(RUN)'

e2e: build
	@scripts/test/run e2e

# Hurts the servers of a cluster under load; make chaos ROUNDS=20 RUN=TestChaos/Kill for one fault, SERVERS=1 for one server
ROUNDS ?= 1
chaos: build
	@scripts/test/images
	LITE_CHAOS_SERVERS='$(SERVERS)' scripts/test/run chaos '$(ROUNDS)' '$(RUN)'

vm-test: build # on a virtual machine whose processor is emulated; make vm-test RUN=TestInstall
	@scripts/setup vm
	@scripts/test/images
	. scripts/env && LITE_MACHINE_TEST=1 go test -v -count=1 -timeout 100m -run '$(RUN)' ./tests/machine

# Kubernetes' own tests; make conformance FOCUS='\[sig-apps\].*Deployment' for a part: docs/conformance.md
conformance: build
	@scripts/test/images
	@scripts/test/conformance

bench: build # make bench ARGS="-runs 1"
	@scripts/test/images
	. scripts/env && go test -run '^$$' -bench . -benchtime 1x -timeout 2h ./tests/harness/bench -args $(ARGS)

release: # make release VERSION=v1.2.3 BASE_URL=https://releases.example.org/lite CHANNEL=stable SIGNING_KEY=key.pem
	@scripts/release/make

release-check: # with the same variables, after make release
	@scripts/release/make check

vuln: build # known vulnerabilities; make vuln VULN_DB=file:///… without a network
	@scripts/release/vuln

golden:
	@scripts/test/golden

lint:
	@scripts/lint

hooks: # has git check what is committed
	@scripts/hooks

fuzz: # make fuzz FUZZTIME=1m; for one package or target: make fuzz RUN=pkg/join, make fuzz RUN=FuzzSums
	@scripts/test/fuzz $(RUN)

race: # unit tests of what does not import Kubernetes; make race RUN=./pkg/dns, make race RUN=all
	@scripts/test/race $(RUN)

clean:
	rm -rf dist pkg/helpers/data/*/bundle.tar.zst* pkg/licenses/data/*/*.zst
