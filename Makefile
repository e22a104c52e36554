# Every task of the project; each is a script in scripts/ that can also be called on its own.
.PHONY: help demo setup test check unit system slow vm coverage mutants proofs bench docs lock clean

help: ## list the targets (the default)
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/\1\t\2/p' Makefile | expand -t 12

demo: ## from nothing to a running, verified appliance (REGISTRY=127.0.0.1:5000 for a real registry)
	scripts/demo $(REGISTRY)

setup: ## install what is missing: Debian packages and .venv (as root or with sudo)
	scripts/setup dev

test: ## install what is missing, then every test, guests included (root; guests take minutes)
	scripts/setup dev
	scripts/check
	scripts/unit
	scripts/system
	scripts/unit tests/slow
	scripts/coverage
	scripts/vm

check: setup ## format, lint, types, layers, house rules
	scripts/check

unit: setup ## the quick tests: within a minute; those that need root say so
	scripts/unit

system: setup ## tests with real mounts, namespaces, networks and containers (root or sudo)
	scripts/system

slow: setup ## tests of several seconds each: more than 2 GiB, a power cut at every step
	scripts/unit tests/slow

coverage: setup ## branch coverage where trust is decided, with its floors
	scripts/coverage

mutants: setup ## small faults in the code that decides, against the quick tests; writes docs/mutants.md (half an hour)
	scripts/mutants

proofs: setup ## tests that boot guests more than twice; writes docs/proofs.md (root; minutes each)
	scripts/proofs

vm: setup ## tests that boot guests (root or sudo)
	scripts/vm

bench: setup ## measure against other tools; writes docs/benchmarks.md (root)
	scripts/bench

docs: setup ## build docs/ into site/; a dead link is an error
	scripts/docs

lock: setup ## renew the lock files
	scripts/lock

clean: ## remove caches and build outputs of this folder, the demo included; your own keysets and machines stay
	scripts/clean
