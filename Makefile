# Every target runs on the Node that the project brings (devDependency `node`), whatever the machine has.
SHELL := /bin/bash
.SHELLFLAGS := --norc -euo pipefail -c
.DEFAULT_GOAL := help
export PATH := $(CURDIR)/node_modules/.bin:$(PATH)

# The compose stack: its variables come from the command line, the environment, or .env, which compose reads as well.
COMPOSE ?= docker compose
dotenv = $(shell sed -n 's/^$(1)=//p' .env 2>/dev/null | tail -n 1)
PORT ?= $(or $(call dotenv,PORT),8080)
COMPOSE_PROFILES ?= $(call dotenv,COMPOSE_PROFILES)
SERVICES := kafka mongodb processor producer
ifneq ($(findstring zookeeper,$(COMPOSE_PROFILES)),)
SERVICES := zookeeper $(SERVICES)
KAFKA_IMAGE ?= $(or $(call dotenv,KAFKA_IMAGE),apache/kafka:3.9.1)
export COMPOSE_PROFILES KAFKA_IMAGE
endif
# Of which services: make logs S=processor
S ?= $(SERVICES)
# Seconds that `wait` waits.
WAIT ?= 180
URL := http://localhost:$(PORT)
# A command of pertoken inside the stack, with the environment that the processor has: podman-compose 1.0 makes one up.
in_processor = $(COMPOSE) exec -T processor xargs -0 -a /proc/1/environ sh -c 'exec env -i "$$@" node bin/pertoken.js $(1)' sh
# podman-compose: a health check is no part of its default image format.
export BUILDAH_FORMAT ?= docker

.PHONY: help run dev check unit test test-install fmt soak bench bench-peers dist clean
.PHONY: setup build up wait down restart ps logs health curl doctor

##@ Develop

help: ## Shows this
	@awk -F ':.*## ' '/^##@ / { printf "\n%s\n", substr($$0, 5) } /^[a-z-]+:.*## / { printf "  %-14s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# npm ci is run by the machine's own npm; what it installs carries the Node for all else.
node_modules/.package-lock.json: package-lock.json package.json
	@npm ci --no-audit --no-fund --loglevel=error
	@node -e 'process.exit(process.versions.node.split(".")[0] >= 26 ? 0 : 1)' || { echo "npm ci did not bring Node 26: is ignore-scripts set? Run: npm rebuild node"; exit 1; }
	@touch $@

run: node_modules/.package-lock.json ## Runs the demo on the embedded log and store: http://localhost:8080
	@exec node bin/pertoken.js up --demo --embedded

dev: node_modules/.package-lock.json ## The same, started again whenever a source changes
	@exec node --watch bin/pertoken.js up --demo --embedded

unit: node_modules/.package-lock.json ## Tests that need no server: the first stage of `make test`
	@node test/run.ts unit

test: check test-install ## Installs what tests need and runs all of them; with CI=true nothing is skipped
	@node test/run.ts

test-install: node_modules/.package-lock.json ## Installs the real servers, the browser and the container tools of the tests
	@node test/servers/install.ts --chromium
	@node test/deploy/lab/install.ts

check: node_modules/.package-lock.json ## Types, lint, house rules
	@tsc --noEmit -p tsconfig.json
	@biome ci --error-on-warnings .
	@node --test --test-reporter=dot test/tidy.test.ts test/docs.test.ts test/life-of-an-event.test.ts

fmt: node_modules/.package-lock.json ## Formats all files
	@biome check --write .

soak: test-install ## Long doses of what `make test` gives in seconds: ten minutes of outages under the agent
	@AGENT_SECONDS=600 node --test --test-timeout=1500000 test/flows/agent/agent.test.ts
	@HOSTLESS_ROUNDS=100 node --test --test-timeout=4000000 test/flows/crash-hostless.test.ts

bench: test-install ## Measures against a naive loop and Kafka Connect; prints targets and results. Options: BENCH="--quick"
	@node test/bench/bench.ts $(BENCH)
	@node test/bench/ledger/ledger.ts
	@node test/bench/agent.ts
	@node test/bench/post.ts --rounds 3

bench-peers: node_modules/.package-lock.json ## Installs Kafka Connect with MongoDB's sink, which `make bench` compares with
	@node test/bench/peers/install.ts

dist: node_modules/.package-lock.json ## Compiles dist/, which the published package carries
	@npm run --silent build

PLANTUML_VERSION := 1.2025.4
PLANTUML_SHA256 := 1e7964277a6c3907c640af5d584364d42a2ec86aae7d608ea52d2f45fb281c13
PLANTUML := .cache/plantuml/plantuml-$(PLANTUML_VERSION).jar

$(PLANTUML):
	@mvn -q -B dependency:copy -Dartifact=net.sourceforge.plantuml:plantuml:$(PLANTUML_VERSION) -DoutputDirectory=$(CURDIR)/$(@D)
	@echo '$(PLANTUML_SHA256)  $@' | sha256sum --check --quiet || { rm -f $@; exit 1; }

diagrams: $(PLANTUML) ## Renders docs/diagrams (Java and Maven; PlantUML comes from Maven Central)
	@java -Djava.awt.headless=true -jar $(PLANTUML) -tsvg docs/diagrams/*.puml

clean: ## Removes what was built or installed; never data
	@rm -rf node_modules dist .cache coverage

##@ Run a stack of containers on this machine (several machines: make -C deploy)

setup: ## Installs Docker and compose where they are missing, and builds; says what it will change, and asks
	@deploy/docker-setup.sh
	@if docker info >/dev/null 2>&1; then $(MAKE) build; else sg docker -c '$(MAKE) build'; fi

build: ## Builds the image of processor, producer and agent
	@VERSION=$$(sed -n 's/^ *"version": "\(.*\)",/\1/p' package.json) \
	  REVISION=$$(git rev-parse HEAD 2>/dev/null || echo unknown) $(COMPOSE) build processor

up: ## Starts Kafka, MongoDB, processor and producer (COMPOSE_PROFILES=zookeeper: Kafka 3.9 with ZooKeeper)
	@$(COMPOSE) up -d $(SERVICES)

wait: ## Waits until all is well, WAIT seconds at most
	@for ((tries = 0; tries < $(WAIT); tries++)); do \
	  curl -fsS --max-time 5 -o /dev/null $(URL)/health 2>/dev/null && { echo "$(URL) is well"; exit 0; }; sleep 1; done; \
	echo "Not well after $(WAIT) s: $(URL)/health. See: make health ps logs" >&2; exit 1

down: ## Stops and removes the containers; data stay
	@$(COMPOSE) down

restart: ## Restarts all services, or S=processor
	@$(COMPOSE) restart $(S)

ps: ## What runs
	@$(COMPOSE) ps

logs: ## The last lines of all services, or S=processor
	@$(COMPOSE) logs --tail=100 $(S)

health: ## Shows /health of the pertoken that runs here
	@curl -sS --max-time 5 --fail-with-body $(URL)/health && echo

curl: ## Shows its latest GPU sample and its live windows
	@curl -sS --max-time 5 --fail-with-body $(URL)/gpu/info && echo
	@curl -sS --max-time 5 --fail-with-body $(URL)/api/v1/live && echo

doctor: ## Checks log, store and HTTP: inside the stack where it is up, else of the settings in force
	@if [[ -n $$(command -v $(firstword $(COMPOSE))) && $$($(COMPOSE) ps 2>/dev/null) == *processor* ]]; then \
	  $(call in_processor,doctor); \
	else $(MAKE) --no-print-directory own-doctor; fi

own-doctor: node_modules/.package-lock.json
	@node bin/pertoken.js doctor
