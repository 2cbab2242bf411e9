# Every target runs on the Node that the project brings (devDependency `node`), whatever the machine has.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
export PATH := $(CURDIR)/node_modules/.bin:$(PATH)
PORT ?= 8080

.PHONY: help run dev test test-install check fmt bench build health doctor clean

help: ## Shows this
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

# npm ci is run by the machine's own npm; what it installs carries the Node for all else.
node_modules/.package-lock.json: package-lock.json package.json
	@npm ci --no-audit --no-fund --loglevel=error
	@node -e 'process.exit(process.versions.node.split(".")[0] >= 26 ? 0 : 1)' || { echo "npm ci did not bring Node 26: is ignore-scripts set? Run: npm rebuild node"; exit 1; }
	@touch $@

run: node_modules/.package-lock.json ## Runs the demo on the embedded log and store: http://localhost:8080
	@exec node bin/pertoken.js up --demo --embedded

dev: node_modules/.package-lock.json ## The same, started again whenever a source changes
	@exec node --watch bin/pertoken.js up --demo --embedded

test: check test-install ## Installs what tests need and runs all of them; with CI=true nothing is skipped
	@node test/run.ts

test-install: node_modules/.package-lock.json ## Installs the real servers and the browser that tests use
	@node test/servers/install.ts --chromium

check: node_modules/.package-lock.json ## Types, lint, house rules
	@tsc --noEmit -p tsconfig.json
	@biome ci --error-on-warnings .
	@node --test --test-reporter=dot test/tidy.test.ts

fmt: node_modules/.package-lock.json ## Formats all files
	@biome check --write .

bench: test-install ## Measures against a naive loop on real servers; prints targets and what was reached
	@node bench/bench.ts

build: node_modules/.package-lock.json ## Compiles dist/, which the published package carries
	@node build.ts

health: ## Shows /health of a running pertoken
	@curl -sS --max-time 5 "http://localhost:$(PORT)/health"; echo

doctor: node_modules/.package-lock.json ## Checks log, store and HTTP of the settings in force
	@node bin/pertoken.js doctor

clean: ## Removes what was built or installed; never data
	@rm -rf node_modules dist .cache coverage
