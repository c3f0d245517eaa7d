# Two commands: `make demo` and `make test`. Both set up what they need; what they cannot, they name.
SHELL := bash
CACHE := $(or $(FRAPPE_OPERATOR_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/frappe-operator)
export CARGO_TARGET_DIR ?= $(CACHE)/target
PROGRAMS := $(CARGO_TARGET_DIR)/debug

.PHONY: help demo test unit integration runner queues lint deny controlplane crds helm

help:
	@sed -n 's/^## //p' $(MAKEFILE_LIST)

## make demo           a cluster, the operator, one bench and 20 sites; Ctrl-C removes it (ONCE=1 ends by itself)
demo: controlplane checkout
	cargo build --quiet --workspace --bins
	$(PROGRAMS)/demo --operator $(PROGRAMS)/frappe-operator $(if $(ONCE),--once)

## make test           everything: lint, unit, snapshot and property tests, the runner's, and integration
test: tools lint alerts runner queues unit transfer integration
	@echo "make test: all of it passed"

## make lint           rustfmt, clippy, doc, and deny where cargo-deny is installed
lint: checkout
	cargo fmt --all --check
	cargo clippy --quiet --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --quiet --workspace --no-deps
	$(MAKE) --no-print-directory deny

deny:
	@if command -v cargo-deny >/dev/null; then cargo deny --log-level error check bans licenses sources; \
	else echo "lint: cargo-deny is not installed, dependencies were not judged (cargo install cargo-deny)"; fi

## make alerts         the chart's alert rules: what each fires for, and what not (promtool)
.PHONY: alerts
PROMTOOL := v0.316.0
alerts: export PATH := $(CACHE)/promtool/$(PROMTOOL):$(PATH)
alerts: tools
	@if [ -x $(CACHE)/promtool/$(PROMTOOL)/promtool ] || \
	  GOBIN=$(CACHE)/promtool/$(PROMTOOL) go install github.com/prometheus/prometheus/cmd/promtool@$(PROMTOOL); then \
	  promtool check rules --lint=all --lint-fatal helm/frappe-operator/files/alerts.yaml && promtool test rules helm/tests/alerts.yaml; \
	else echo "SKIPPED: the alert rules were not tested: promtool could not be installed"; fi

## make unit           unit, snapshot, property and tidy tests; the sharding protocol explored and simulated
unit: checkout
	cargo test --quiet --workspace --lib --bins --test tidy --test generated --test reference
	cargo test --quiet -p kube-sharding --test model --test sim

## make runner         the site runner against a real MariaDB and a stand-in for Frappe
runner:
	python3 -m unittest discover --start-directory src/runner/tests --verbose

## make transfer       what carries backups, against a real S3 server
.PHONY: transfer objectstore
transfer: objectstore checkout
	cargo test --quiet -p frappe-operator --test transfer -- --nocapture
	OPERATOR=$(PROGRAMS)/frappe-operator OBJECT_STORE=$$(loadtest/objectstore/build) \
	  python3 -m unittest discover --start-directory tests/backups --verbose

objectstore: tools
	@loadtest/objectstore/build >/dev/null

## make queues         the keys that KEDA's triggers name, against a real Redis and workers of the rq versions Frappe pins
queues:
	RQ_CACHE=$(CACHE)/rq python3 -m unittest discover --start-directory tests/queues --verbose

## make integration    against real kube-apiservers
integration: export FRAPPE_RIGHTS_USED = $(CARGO_TARGET_DIR)/rights-used
integration: controlplane checkout helm static
	@rm -rf $(FRAPPE_RIGHTS_USED)
	FRAPPE_STATIC_PROGRAM=$(CARGO_TARGET_DIR)/$(STATIC)/debug/frappe-operator \
	PATH="$(CACHE)/helm:$$PATH" RUST_BACKTRACE=0 cargo test --quiet --workspace --test it -- --test-threads 2
	cargo test --quiet -p frappe-operator --test rights -- --nocapture

# Helm, of the release that is named here, where there is none.
helm: tools
	@command -v helm >/dev/null || [ -x $(CACHE)/helm/helm ] || GOBIN=$(CACHE)/helm go install helm.sh/helm/v3/cmd/helm@v3.19.0

controlplane: tools
	loadtest/controlplane/cluster build

## make crds           write crds/*.yaml, and the fence of the chart, from the Rust types
crds:
	cargo run --quiet -p frappe-crds --example crdgen
	cargo run --quiet -p kube-sharding --example crd -- vyogo.tech >crds/vyogo.tech_slotmaps.yaml
	cargo run --quiet -p frappe-operator -- admission-fence --namespace NAMESPACE-OF-THE-RELEASE \
	  --service-account ACCOUNT-OF-THE-RELEASE >helm/frappe-operator/files/admission-fence.yaml

## make docs           write docs/api.md and docs/metrics.md from the code
.PHONY: docs
docs:
	UPDATE_DOCS=1 cargo test --quiet -p frappe-operator --test reference

## make manifests      write helm/install.yaml from the chart
.PHONY: manifests print-manifests
manifests: helm
	@$(MAKE) --no-print-directory --silent print-manifests >helm/install.yaml

print-manifests:
	@PATH="$(CACHE)/helm:$$PATH" helm template frappe-operator helm/frappe-operator --namespace frappe-operator-system \
	  --kube-version 1.35.0 2>/dev/null | grep -v '^# Source: ' | \
	  sed 's|app.kubernetes.io/managed-by: Helm|app.kubernetes.io/managed-by: kubectl|; /^ *helm.sh\/chart:/d'

# The program of the image, where it can be built: the musl target and a C compiler for it. Unoptimized, since only that it
# runs is tested.
STATIC := x86_64-unknown-linux-musl
.PHONY: static
static: checkout
	@if command -v musl-gcc >/dev/null && { ! command -v rustup >/dev/null || rustup target add $(STATIC) >/dev/null 2>&1; }; then \
	  cargo build --quiet --package frappe-operator --target $(STATIC); \
	else echo "static: not built, since musl-gcc (musl-tools) or Rust's target $(STATIC) is missing"; fi

.PHONY: tools
tools:
	@./loadtest/require-tools

# The build folder is shared by all checkouts, so that dependencies are built once. Cargo tells the project's own
# packages apart by the time of their files only: what another checkout built is removed.
.PHONY: checkout
checkout: tools
	@mkdir -p $(CARGO_TARGET_DIR)
	@if [ "$$(cat $(CARGO_TARGET_DIR)/checkout 2>/dev/null)" != "$(CURDIR)" ]; then \
	  cargo clean --quiet -p frappe-operator -p frappe-crds -p kube-sharding -p frappe-loadtest -p frappe-bench && \
	  echo "$(CURDIR)" >$(CARGO_TARGET_DIR)/checkout; \
	fi

## make fleet          replicas under fire: SITES=2000 MEMBERS=5 (a release build, then about 20 minutes)
.PHONY: fleet
fleet: controlplane checkout
	cargo build --quiet --release -p frappe-operator -p frappe-loadtest --bins
	$(CARGO_TARGET_DIR)/release/fleet --operator $(CARGO_TARGET_DIR)/release/frappe-operator \
	  --sites $(or $(SITES),2000) --members $(or $(MEMBERS),5) $(FLEET)

## make loadtest       measure: SCENARIO=basic (also steady, scale-out, rolling-update, chaos, 10k) SITES= BENCHES= MEMBERS=
.PHONY: loadtest loadtest-table
loadtest: controlplane checkout
	cargo build --quiet --release -p frappe-operator -p frappe-loadtest --bins
	$(CARGO_TARGET_DIR)/release/loadtest run --operator $(CARGO_TARGET_DIR)/release/frappe-operator \
	  --scenario $(or $(SCENARIO),basic) $(if $(SITES),--sites $(SITES)) $(if $(BENCHES),--benches $(BENCHES)) \
	  $(if $(MEMBERS),--members $(MEMBERS)) $(LOADTEST)

loadtest-table:
	cargo run --quiet -p frappe-loadtest --bin loadtest -- table
