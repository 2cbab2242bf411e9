# What the Makefiles of the four machines have in common: the shell, `help`, .env for every recipe, and the guard before
# data are destroyed. Values come from .env (made from .env.example at the first use; git does not see it), and may be
# given on the command line as well: make up PORT=8081.
SHELL := /bin/bash
# Over ssh bash would read the login's bashrc, which does not stand -u.
.SHELLFLAGS := --norc -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# Runs the rest of the line with the values of .env in its environment.
RUN := ../with-env.sh

# First line of a recipe that destroys data. $(1): what is lost.
confirm = @[[ "$(CONFIRM)" == yes ]] || { echo "make $@ destroys $(1): say make $@ CONFIRM=yes" >&2; exit 2; }

.PHONY: help
help: ## Shows this
	@grep -hE '^[a-z0-9-]+:.*##' $(firstword $(MAKEFILE_LIST)) $(lastword $(MAKEFILE_LIST)) | sed -E 's/:[^#]*## /\t/' | expand -t 18
