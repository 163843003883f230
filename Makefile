# Every command a person or CI runs. `make` alone lists them.

CARGO      ?= cargo
# Where `cargo test` puts programs.
BUILT       = $(or $(CARGO_TARGET_DIR),target)/debug
DEVCLUSTER  = $(CARGO) run --quiet --package eventflow-devcluster --
# Tests that need no server but are long enough for a file of their own, or run a program.
PURE_TESTS    = $(call tests,quota) --test help --test program
# Tests that need compilers for wasm32 and of other languages.
POLICY_TESTS  = $(call tests,policy-engine) --test policy_source
# Tests that need pods. Chosen by file, as all tests of servers are: naming crates instead would build the dependencies
# again with other features.
NODE_TESTS    = $(call tests,e2e)
# Whole clusters inside the cluster, one at a time.
ALONE_TESTS   = $(call tests,devcluster)
tests         = $(addprefix --test ,$(sort $(foreach crate,$(1),$(basename $(notdir $(wildcard $(crate)/tests/*.rs)\
                $(patsubst %/main.rs,%,$(wildcard $(crate)/tests/*/main.rs)))))))
# Where test runs leave the logs of the clusters they ran in.
TEST_LOGS     = $(BUILT)/cluster-logs
# Narrow `make test` down: TESTS="name_of_a_test".
TESTS        ?=
# What `make bench` measures.
QUESTIONS  ?= policy create list get memory reconcile admission-queue admission-verdict admission-plain admission-scale

# Tools that `make check` needs, built once per user.
CACHE         = $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/eventflow
DENY          = $(CACHE)/cargo-deny-0.20.2/bin/cargo-deny
# Where policies are tested natively.
GUESTS        = $(abspath target/policies/native)
# The distribution's compiler for wasm32, for toolchains that rustup cannot add the target to.
WASM_PACKAGES = rustc-web cargo-web rust-web-src lld-19

.PHONY: help up down status logs clean check wasm policies test crds bench

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

up: ## start the platform on this machine, or bring the running one up to date
	@$(CARGO) build --package eventflow-devcluster
	@$(DEVCLUSTER) up

down: ## stop all that `make up` started
	@$(DEVCLUSTER) down

status: ## show what runs and where
	@$(DEVCLUSTER) status || true

logs: ## follow the logs of all components
	@$(DEVCLUSTER) logs

clean: ## `make down`, and remove the data
	@$(DEVCLUSTER) clean

check: $(DENY) ## format, lints, dependency rules, documents, and the tests that need no cluster
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- --deny warnings
	$(CARGO) test --workspace --lib --bins $(PURE_TESTS)
	RUSTDOCFLAGS="--deny warnings" $(CARGO) doc --workspace --no-deps --quiet
	$(DENY) check bans licenses sources
	$(MAKE) --no-print-directory wasm
	cd policies && $(CARGO) fmt --check
	cd policies && $(CARGO) clippy --all-targets --target-dir $(GUESTS) -- --deny warnings
	cd policies && $(CARGO) test --quiet --target-dir $(GUESTS)

wasm: ## check that api/ compiles for the browser, without the custom resources
	@if rustup target add wasm32-unknown-unknown >/dev/null 2>&1; then \
		$(CARGO) check --package eventflow-api --target wasm32-unknown-unknown; \
	else \
		command -v wasm-ld-19 >/dev/null || apt-get install --yes --no-install-recommends $(WASM_PACKAGES); \
		PATH=/usr/bin:$$PATH RUSTC_BOOTSTRAP=1 RUSTC=/usr/bin/rustc /usr/bin/cargo check --package eventflow-api \
			--target wasm32-unknown-unknown -Z build-std=std,panic_abort --target-dir target/wasm; \
	fi

policies: ## build the built-in policies into target/policies/components, with their default bindings
	$(CARGO) build --quiet --workspace --bin policy-build
	$(BUILT)/policy-build --builtin --folder policies --target-dir target/policies --out target/policies/components

test: check ## everything: `make check`, then policies as components, a real control plane, real pods
	$(CARGO) test --workspace --no-run
	$(CARGO) test --offline --workspace $(POLICY_TESTS) -- $(TESTS)
	$(BUILT)/devcluster run --logs $(TEST_LOGS)/controller -- \
		$(CARGO) test --offline --workspace $(call tests,controller) -- $(TESTS)
	$(BUILT)/devcluster run --logs $(TEST_LOGS)/gateway -- \
		$(CARGO) test --offline --workspace $(call tests,gateway) -- $(TESTS)
	$(BUILT)/devcluster run --node --logs $(TEST_LOGS)/node -- \
		$(CARGO) test --offline --workspace $(NODE_TESTS) -- $(TESTS)
	$(BUILT)/devcluster run --node --logs $(TEST_LOGS)/leftovers -- \
		$(CARGO) test --offline --workspace $(ALONE_TESTS) -- --test-threads 1 $(TESTS)

$(DENY):
	$(CARGO) install cargo-deny --version 0.20.2 --locked --root $(CACHE)/cargo-deny-0.20.2

crds: ## write helm/crds from the types in api/
	$(CARGO) run --quiet --package eventflow-controller --bin crdgen

bench: ## measure what loadtest/ asks, each question on a cluster of its own; QUESTIONS="list get" narrows it down
	$(CARGO) build --release --package eventflow-gateway --package eventflow-controller --package eventflow-loadtest \
		--package eventflow-loadtest-policy
	@for question in $(QUESTIONS); do \
		if [ $$question = policy ]; then target/release/loadtest-policy || exit 1; continue; fi; \
		$(DEVCLUSTER) run --node -- target/release/loadtest $$question || exit 1; \
	done
