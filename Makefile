# Main targets: `make demo` and `make test`. Both install what they need where they can, and report what is missing.
SHELL := bash
export FRAPPE_OPERATOR_CACHE := $(or $(FRAPPE_OPERATOR_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/frappe-operator)
STEP := @loadtest/setup/step
PROGRAMS := $(CARGO_TARGET_DIR)/debug
# Commands of tests are of the whole workspace, so that no crate is built twice for two sets of features.
# Tests that need nothing but Rust.
UNIT := --lib --bins --test tidy --test modules --test generated --test reference
# The sharding crate, its examples, and whole replicas, on the model API server; and that server.
SIMULATED := --test model --test sim --test threads --test server --test examples --test errors --test builder --test fleet
# Tests that repeat a way for every request of it.
NO_SWEEPS := --skip crash:: --skip faults:: --skip races:: --skip handover::
# Goals that leave each other alone: many of them wait for clocks, servers or the disk.
BESIDE_EACH_OTHER := runner unit lint transfer front-door queues alerts
# A program that is built for the tests, before one of the system.
WITH = PATH="$$(loadtest/setup/program $(1)):$$PATH"

ifeq ($(CARGO_TARGET_DIR),)
# Each goal runs with a build folder that no other run has meanwhile.
GOALS := $(or $(MAKECMDGOALS),help)
.PHONY: $(GOALS)
$(GOALS):
	@loadtest/setup/in-build-folder $(MAKE) --no-print-directory $@
else

.PHONY: help demo test unit integration runner queues lint deny controlplane crds helm

help:
	@sed -n 's/^## //p' Makefile

## make demo           a cluster, the operator, one bench and 20 sites; Ctrl-C removes it (ONCE=1 ends by itself)
demo: needs-demo controlplane checkout
	$(STEP) "operator and demo" cargo build --locked -p frappe-operator -p frappe-loadtest --bin frappe-operator --bin demo
	@"$(PROGRAMS)/demo" --operator "$(PROGRAMS)/frappe-operator" $(if $(ONCE),--once)

## make test           everything: lint, unit, snapshot and property tests, the runner's, and integration
test: needs-test
	@STEP_PARALLEL=1 $(MAKE) --no-print-directory --jobs 4 $(BESIDE_EACH_OTHER)
	@$(MAKE) --no-print-directory integration
	@loadtest/setup/tally

## make check          quick checks for each change: rustfmt, clippy, unit and tidy tests, the protocol's model; needs only Rust
.PHONY: check
check: needs-demo checkout
	$(STEP) "rustfmt" cargo fmt --all --check
	$(STEP) "clippy" cargo clippy --locked --workspace --all-targets -- -D warnings
	$(STEP) "unit tests" cargo test --locked --workspace $(UNIT)
	$(STEP) "models of the replicas' protocol and of the API server, without sweeps" cargo test --locked --workspace --test model -- $(NO_SWEEPS)

## make lint           rustfmt, clippy, rustdoc, cargo-deny, and whether NOTICE is complete
lint: needs-test checkout deny
	$(STEP) "rustfmt" cargo fmt --all --check
	$(STEP) "NOTICE" loadtest/setup/notice --check
	$(STEP) "clippy" cargo clippy --locked --workspace --all-targets -- -D warnings
	$(STEP) "documentation" env RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --document-private-items

deny: needs-test
	@folder=$$(loadtest/setup/program cargo-deny) && loadtest/setup/step "dependencies' licences, bans and sources" \
	  env PATH="$$folder:$$PATH" cargo deny --log-level error check bans licenses sources

## make front-door     tests of `make demo` and `make test` themselves: steps, requirements, downloads, build folders
.PHONY: front-door
front-door: needs-test
	$(STEP) "the two commands themselves" python3 -m unittest discover --start-directory tests/setup --verbose

## make alerts         tests of the chart's alert rules (promtool)
.PHONY: alerts
alerts: needs-test
	@folder=$$(loadtest/setup/program promtool) && loadtest/setup/step "alert rules" env PATH="$$folder:$$PATH" sh -ec \
	  'promtool check rules --lint=all --lint-fatal helm/frappe-operator/files/alerts.yaml && promtool test rules helm/tests/alerts.yaml'

## make unit           unit, snapshot, property, tidy and documentation tests; the sharding protocol and the controllers, simulated
unit: needs-test checkout
	$(STEP) "unit tests" cargo test --locked --workspace $(UNIT)
	$(STEP) "replicas' protocol and controllers, simulated" cargo test --locked --workspace $(SIMULATED)
	$(STEP) "examples in the documentation" cargo test --locked --workspace --doc

# Beside the tests with kube 4.2, for which nothing is built twice in each run.
## make kube-5         tests of the sharding crates with kube 5
.PHONY: kube-5
kube-5: needs-demo checkout
	$(STEP) "unit tests with kube 5" cargo test --locked --package kube-sharding --no-default-features --features kube-5,rates,docs-rs --lib
	$(STEP) "tests and documents with kube 5" cargo test --locked --manifest-path sharding/kube-5/Cargo.toml

# Without tests, whose dependencies may be newer. The toolchain is of rustup, and its build folder is removed.
## make oldest-rust    the sharding crates with the Rust that they state as their oldest, with kube 4.2 and with kube 5
.PHONY: oldest-rust
oldest-rust: export RUSTUP_TOOLCHAIN = $(shell sed -n 's/^rust-version = "\(.*\)"/\1/p' sharding/Cargo.toml)
oldest-rust: export CARGO_TARGET_DIR := $(CARGO_TARGET_DIR)/oldest-rust
oldest-rust:
	@rustup toolchain install --profile minimal $(RUSTUP_TOOLCHAIN)
	$(STEP) "Rust $(RUSTUP_TOOLCHAIN), kube 4.2" cargo check --locked --package kube-sharding --package kube-sharding-sim --features kube-sharding/docs-rs,kube-sharding-sim/kube-4
	$(STEP) "Rust $(RUSTUP_TOOLCHAIN), kube 5" cargo check --locked --package kube-sharding --no-default-features --features kube-5,rates,docs-rs
	@rm -rf "$(CARGO_TARGET_DIR)"

## make runner         the site runner against a real MariaDB and a stand-in for Frappe
runner: needs-test
	$(STEP) "site runner" src/runner/tests/all

## make sweep          kills of the runner at every step, of a replica after every write, each fault of every request: `make test` has a part of each
.PHONY: sweep
sweep: needs-test checkout
	$(STEP) "site runner, killed at every step" env RUNNER_EVERY_STEP=1 src/runner/tests/all
	$(STEP) "controllers, killed after every write and with a fault of every request" env MODEL_EVERY_WRITE=1 cargo test --locked --workspace --test model -- crash:: faults::

## make transfer       upload and download of backups, against real storage services
.PHONY: transfer objectstore
transfer: objectstore checkout
	$(STEP) "transfer of backups" cargo test --locked --workspace --test transfer -- --nocapture
	@store=$$(loadtest/objectstore/build) && OPERATOR="$(PROGRAMS)/frappe-operator" OBJECT_STORE="$$store" \
	  loadtest/setup/step "backups end to end" python3 -m unittest discover --start-directory tests/backups --verbose

objectstore: needs-test
	@loadtest/objectstore/build >/dev/null
	@loadtest/objectstore/azurite >/dev/null

## make queues         the keys of KEDA's triggers, against a real Redis and the rq versions that Frappe pins
queues: needs-test
	@RQ_CACHE="$(FRAPPE_OPERATOR_CACHE)/rq" loadtest/setup/step "queues" \
	  python3 -m unittest discover --start-directory tests/queues --verbose

## make integration    tests against real kube-apiservers
# The servers of the tests are written in Go: with it they collect garbage less often, which is an eighth of their CPU.
integration: export GOGC = 300
integration: export FRAPPE_RIGHTS_USED = $(CARGO_TARGET_DIR)/rights-used
integration: export FRAPPE_STATIC_PROGRAM = $(CARGO_TARGET_DIR)/$(STATIC)/debug/frappe-operator
integration: needs-test controlplane checkout helm static
	@rm -rf "$$FRAPPE_RIGHTS_USED"
	@folder=$$(loadtest/setup/program helm) && PATH="$$folder:$$PATH" RUST_BACKTRACE=0 loadtest/setup/step "integration" bash -ec \
	  'cargo test --locked --workspace --test it --test load --no-run && printf "%s\n" it load | \
	  xargs --max-procs 2 -I TEST cargo test --locked --workspace --test TEST -- --test-threads 6'
	$(STEP) "rights that were used" cargo test --locked --workspace --test rights -- --nocapture

helm: needs-test
	@loadtest/setup/program helm >/dev/null

controlplane: needs-demo
	@loadtest/controlplane/cluster build

## make crds           generate crds/*.yaml and the chart's admission policies from the Rust types
crds:
	cargo run --quiet -p frappe-crds --example crdgen
	cargo run --quiet -p kube-sharding --example crd -- vyogo.tech >crds/vyogo.tech_slotmaps.yaml
	cargo run --quiet -p frappe-operator -- admission-fence --namespace NAMESPACE-OF-THE-RELEASE \
	  --service-account ACCOUNT-OF-THE-RELEASE >helm/frappe-operator/files/admission-fence.yaml
	cargo run --quiet -p frappe-operator -- admission-references >helm/frappe-operator/files/admission-references.yaml

## make notice         generate NOTICE: components of the image and their licences
.PHONY: notice
notice:
	loadtest/setup/notice

## make docs           write docs/api.md, docs/metrics.md, docs/permissions.md and the chart's rights from the code
.PHONY: docs
docs:
	UPDATE_DOCS=1 cargo test --quiet -p frappe-operator --test reference

## make manifests      generate helm/install.yaml from the chart, and its checksum in install.sh
.PHONY: manifests print-manifests
manifests: helm
	@$(MAKE) --no-print-directory --silent print-manifests >helm/install.yaml
	@sed -i.before "s/^sha256=.*/sha256=$$(sha256sum helm/install.yaml | cut -d ' ' -f 1)/" install.sh && rm install.sh.before

print-manifests:
	@$(call WITH,helm) helm template frappe-operator helm/frappe-operator --namespace frappe-operator-system \
	  --kube-version 1.35.0 2>/dev/null | grep -v '^# Source: ' | \
	  sed 's|app.kubernetes.io/managed-by: Helm|app.kubernetes.io/managed-by: kubectl|; /^ *helm.sh\/chart:/d'

# The program of the image, where it can be built: the musl target and a C compiler for it. Unoptimized, since only that it
# runs is tested.
STATIC := x86_64-unknown-linux-musl
.PHONY: static
static: checkout
	@if command -v musl-gcc >/dev/null && rustc --print target-libdir --target $(STATIC) >/dev/null && \
	  { [ -d "$$(rustc --print target-libdir --target $(STATIC))" ] || rustup target add $(STATIC) >/dev/null 2>&1; }; then \
	  loadtest/setup/step "static program" cargo build --locked --package frappe-operator --target $(STATIC); \
	else echo "static program: not built, since musl-gcc (musl-tools) or Rust's target $(STATIC) is missing" >&2; fi

## make node           a real Kubernetes node in namespaces of its own, which needs root: NAME=node; make node-down removes it
.PHONY: node node-down node-test
node: needs-node
	@loadtest/node/node up $(or $(NAME),node)

node-down:
	@loadtest/node/node down $(or $(NAME),node)

# On machines that can have a node; others are told why they cannot.
.PHONY: node-test-if-possible
node-test-if-possible:
	@if $(MAKE) --no-print-directory node-build; then $(MAKE) --no-print-directory node-test; \
	else echo "NOT RUN: the tests of a real node (docs/node.md), for the reason above" >&2; fi

.PHONY: node-build
node-build: needs-node
	@loadtest/node/node build
	@loadtest/node/images/build >/dev/null

## make node-test      the node itself, and on it a bench and a site with real pods, from chart to deletion (needs root)
node-test: export OPERATOR = $(CARGO_TARGET_DIR)/$(STATIC)/debug/frappe-operator
node-test: needs-node static node-build
	@folder=$$(loadtest/setup/program helm) && PATH="$$folder:$$PATH" loadtest/setup/step "real node" \
	  python3 -m unittest discover --start-directory tests/node --verbose

## make real           every verb and component against a real Frappe (needs root): BENCH=DIR BENCH_NEXT=DIR (docs/testing.md)
# In namespaces of its own: nothing listens on this machine, nothing reaches outside, and all processes end with the suite.
.PHONY: real
real: export BENCH := $(and $(BENCH),$(abspath $(BENCH)))
real: export BENCH_NEXT := $(and $(BENCH_NEXT),$(abspath $(BENCH_NEXT)))
real: needs-real
	@cd tests/real && exec unshare --mount --net --pid --fork --kill-child=KILL --mount-proc --propagation private \
	  sh -c 'ip link set lo up && exec python3 -m unittest --verbose "$$@"' - $(or $(REAL),discover)

.PHONY: needs-demo needs-test needs-node needs-real
needs-real:
	@[ -n "$(BENCH)" ] || { echo "NOT RUN: make real needs a bench with a real Frappe: BENCH=DIR (docs/testing.md)" >&2; exit 2; }
	@loadtest/setup/require real

needs-node:
	@loadtest/setup/require node

needs-demo:
	@loadtest/setup/require demo

needs-test:
	@loadtest/setup/require test

# Cargo tells the project's own packages apart by the time of their files only: what another checkout built is removed.
OWN := -p frappe-operator -p frappe-crds -p kube-sharding -p kube-sharding-sim -p frappe-loadtest -p frappe-benchmarks
.PHONY: checkout
checkout:
	@mkdir -p "$(CARGO_TARGET_DIR)"
	@if [ "$$(cat "$(CARGO_TARGET_DIR)/checkout" 2>/dev/null)" != "$(CURDIR)" ]; then \
	  for folder in debug release doc; do \
	    [ ! -d "$(CARGO_TARGET_DIR)/$$folder" ] || { cargo clean --quiet $(OWN); break; }; \
	  done && \
	  { [ ! -d "$(CARGO_TARGET_DIR)/$(STATIC)" ] || cargo clean --quiet --target $(STATIC) $(OWN); } && \
	  echo "$(CURDIR)" >"$(CARGO_TARGET_DIR)/checkout"; \
	fi

## make fleet          replicas with failures: SITES=2000 MEMBERS=5, then chaos (a release build, then about 35 minutes)
.PHONY: fleet
fleet: controlplane checkout
	$(STEP) "release build" cargo build --locked --release -p frappe-operator -p frappe-loadtest --bins
	"$(CARGO_TARGET_DIR)/release/fleet" --operator "$(CARGO_TARGET_DIR)/release/frappe-operator" \
	  --sites $(or $(SITES),2000) --members $(or $(MEMBERS),5) $(FLEET)
	@$(MAKE) --no-print-directory chaos

## make chaos          random faults for 10 minutes, checked by the audit log: SEED=1 MAP=alone CHAOS="--sites 150 --members 4"
.PHONY: chaos
chaos: controlplane checkout
	$(STEP) "release build" cargo build --locked --release -p frappe-operator -p frappe-loadtest --bins
	"$(CARGO_TARGET_DIR)/release/chaos" --operator "$(CARGO_TARGET_DIR)/release/frappe-operator" \
	  $(if $(filter alone,$(MAP)),,--map-by-hand) --seed $(or $(SEED),1) $(CHAOS)

## make loadtest       measure: SCENARIO=basic (also steady, scale-out, rolling-update, chaos, 10k) SITES= BENCHES= MEMBERS=
.PHONY: loadtest loadtest-table
loadtest: controlplane checkout
	$(STEP) "release build" cargo build --locked --release -p frappe-operator -p frappe-loadtest --bins
	"$(CARGO_TARGET_DIR)/release/loadtest" run --operator "$(CARGO_TARGET_DIR)/release/frappe-operator" \
	  --scenario $(or $(SCENARIO),basic) $(if $(SITES),--sites $(SITES)) $(if $(BENCHES),--benches $(BENCHES)) \
	  $(if $(MEMBERS),--members $(MEMBERS)) $(LOADTEST)

loadtest-table:
	cargo run --quiet -p frappe-loadtest --bin loadtest -- table
endif
