CARGO ?= cargo
export CARGO
.DEFAULT_GOAL := help
.PHONY: help run test lint fmt bench compare chaos fuzz fuzz-api clean-data

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo 'Arguments are passed on with ARGS: make run ARGS="--help", make test ARGS="-p runmill-shared"'

run: ## Build and start everything in one process; nothing else has to run
	@scripts/setup.sh build
	@$(CARGO) run --bin runmill -- $(ARGS)

# Tests wait for processes and deadlines more than they compute: on two processors so many at once take three quarters of the time that two
# take. More would be slow enough on the databases that they share to miss deadlines.
export RUST_TEST_THREADS ?= 4
test: lint ## Lints, then all tests, with a Postgres and a Redis of their own
	@scripts/with-services.sh $(CARGO) test $(if $(ARGS),$(ARGS),--workspace) --no-fail-fast

lint: ## Formatting and clippy, as CI wants them
	@scripts/setup.sh test
	@$(CARGO) fmt --all --check
	@$(CARGO) fmt --manifest-path fuzz/Cargo.toml --check
	@$(CARGO) clippy --workspace --all-targets -- -D warnings

fmt: ## Format all code
	@$(CARGO) fmt --all
	@$(CARGO) fmt --manifest-path fuzz/Cargo.toml

bench: ## Release build, then every benchmark, each beside its baseline
	@scripts/setup.sh test
	@scripts/bench-python.sh
	@$(CARGO) build --release -p runmill -p runmill-bench
	@ulimit -n 8192 2>/dev/null || true; $(CARGO) run --release -p runmill-bench -- $(ARGS)

compare: ## The same work on Runmill and on Agno AgentOS, Celery, BullMQ and stock apalis-redis, in turn: ARGS="--peers agno --rounds 1"
	@scripts/setup.sh test
	@scripts/compare-peers.sh
	@$(CARGO) build --release -p runmill -p runmill-bench
	@ulimit -n 8192 2>/dev/null || true; $(CARGO) run --release -p runmill-bench -- compare $(ARGS)

MINUTES ?= 3
chaos: ## Break a whole installation under load for MINUTES=3, by a plan of SEED=…, and check every promise
	@scripts/setup.sh chaos
	@$(CARGO) build -p runmill -p runmill-lab
	@ulimit -n 8192 2>/dev/null || true; $(CARGO) run -p runmill-lab -- chaos --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) $(ARGS)

fuzz: ## Throw hostile bytes at every parser, SECONDS_EACH=60 at each; ARGS="cron wav" names some
	@scripts/setup.sh build
	@scripts/fuzz.sh $(ARGS)

fuzz-api: ## Ask a running API all that its OpenAPI documents allow and forbid: SEED=1, EXAMPLES=20, MINUTES=10 of all
	@scripts/setup.sh build
	@scripts/fuzz-api.sh $(ARGS)

clean-data: ## Delete the data of `make run`: ./data
	rm -rf data
