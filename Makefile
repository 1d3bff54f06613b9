# What each step does stands in scripts/; `make` alone builds dist/lite.
SHELL := /bin/bash
.PHONY: build run test lint golden e2e bench clean

build:
	@scripts/setup
	@scripts/build-bundle
	. scripts/env && flags=$$(scripts/ldflags) && go build -ldflags "$$flags" -o dist/lite ./cmd/lite

run: build # make run ARGS="--data-dir /tmp/lite"
	dist/lite server $(ARGS)

test: build
	@scripts/test-images
	@scripts/test

e2e: build
	@scripts/test-images
	@scripts/test e2e

bench: build
	@scripts/test-images
	. scripts/env && go run ./tests/bench $(ARGS)

golden:
	@scripts/golden

lint:
	@scripts/lint

clean:
	rm -rf dist pkg/bundle/data/bundle.tar.zst*
