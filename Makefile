# The few commands that a person needs. What CI runs is what a person runs.

.PHONY: run demo-regions test test-rust test-typescript acceptance browsers redis lint bench instructions valgrind memory faults fault-clients latency cost browser-latency bench-tools fuzz help

help: ## This list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-16s %s\n", $$1, $$2 }'

run: ## A node with development defaults, and a page to try it: http://localhost:8080
	cargo run -- serve --dev

demo-regions: ## Three regions on this machine, bridged, with a page each; needs redis-server
	cargo build
	@demo/regions.sh

test: test-rust test-typescript instructions ## All tests; installs what they need

test-rust: redis ## The Rust tests alone
	cargo test --workspace

test-typescript: browsers ## The TypeScript client and the demo page, alone and in Chromium, Firefox and Node against nodes
	@# The node as the Rust tests have built it: of other features, all would be compiled once more.
	cargo test --workspace --no-run --test cli
	cd clients/typescript && npm ci --no-audit --no-fund && npm test && npm run test:real

# Debian's Redis, of which tests start servers of their own, and what gives a node another clock; installed when missing.
redis:
	@command -v redis-server >/dev/null && ls /usr/lib/*/faketime/libfaketime.so.1 >/dev/null 2>&1 || \
		{ SUDO=$$([ "$$(id -u)" = 0 ] || echo sudo); \
		  $$SUDO apt-get update -qq && \
		  DEBIAN_FRONTEND=noninteractive $$SUDO apt-get install -y -qq redis-server libfaketime; }

# Debian's browsers, installed when they are missing.
browsers:
	@command -v chromium >/dev/null && command -v firefox-esr >/dev/null || \
		{ SUDO=$$([ "$$(id -u)" = 0 ] || echo sudo); \
		  $$SUDO apt-get update -qq && DEBIAN_FRONTEND=noninteractive $$SUDO apt-get install -y -qq chromium firefox-esr; }

acceptance: ## What takes longer than the tests: the TypeScript package as Jest, webpack 4 and TypeScript's resolutions use it
	cd clients/typescript && npm ci --no-audit --no-fund && npm run test:consumers

lint: ## Formatting, clippy, how the house is kept, licences and dependencies, the TypeScript client, the demo page
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo test --workspace --quiet --test house --test layers
	@command -v cargo-deny >/dev/null || cargo install cargo-deny --locked
	cargo deny check bans licenses sources
	@command -v cargo-machete >/dev/null || cargo install cargo-machete --locked
	cargo machete
	cd clients/typescript && npm ci --no-audit --no-fund && npm run lint

bench: ## Micro-benchmarks of the hot path: what is done once per publication, frame or beat
	cargo bench -p skywave-hot-path --bench time

KEEP ?=
instructions: valgrind ## Instructions of the hot path, held against the last release's; KEEP=1 keeps them as those to compare with
	cargo run --release -p skywave-hot-path -- $(if $(KEEP),keep)

# Debian's valgrind, installed when it is missing.
valgrind:
	@command -v valgrind >/dev/null || \
		{ SUDO=$$([ "$$(id -u)" = 0 ] || echo sudo); \
		  $$SUDO apt-get update -qq && DEBIAN_FRONTEND=noninteractive $$SUDO apt-get install -y -qq valgrind; }

memory: ## The node's memory per idle session, for docs/figures.md
	cargo build --release -p skywave -p skywave-load
	target/release/skywave-load memory

FAULTS ?=
faults: redis bench-tools $(if $(findstring --browsers 0,$(FAULTS)),,fault-clients) ## Break nodes, Redis and links of three regions, and check what arrives; FAULTS="--quick --fault node-killed"
	cargo build --release -p skywave -p skywave-regions
	target/release/skywave-regions faults $(FAULTS)

# The TypeScript client and what drives it in Chromium.
fault-clients: browsers
	cd clients/typescript && npm ci --no-audit --no-fund && npm run build && npx tsc

LATENCY ?=
latency: redis bench-tools ## How late publications cross regions, and how fast a link catches up; LATENCY="--loss-percent 0 --wan relay"
	cargo build --release -p skywave -p skywave-regions
	target/release/skywave-regions latency $(LATENCY)

COST ?=
cost: redis bench-tools ## Commands and bytes of Redis per publication, as nodes and regions grow
	cargo build --release -p skywave -p skywave-regions
	target/release/skywave-regions cost $(COST)

BROWSER_LATENCY ?=
browser-latency: browsers bench-tools ## Latency in Chromium where packets are lost, for docs/browser-latency.md; BROWSER_LATENCY="--congestion bbr" prints only
	cargo build --release -p skywave -p skywave-regions
	cd clients/typescript && npm ci --no-audit --no-fund && npm run build && npx tsc && \
		SKYWAVE_BIN=../../target/release/skywave SKYWAVE_LATENCY_ROOT=$(if $(BROWSER_LATENCY),,../..) \
		../../target/release/skywave-regions path $(BROWSER_LATENCY) -- node build/bench/latency.js

# Debian's clock that is off, and its tool for networks; installed when they are missing.
bench-tools:
	@ls /usr/lib/*/faketime/libfaketime.so.1 >/dev/null 2>&1 && command -v ip >/dev/null || \
		{ SUDO=$$([ "$$(id -u)" = 0 ] || echo sudo); \
		  $$SUDO apt-get update -qq && DEBIAN_FRONTEND=noninteractive $$SUDO apt-get install -y -qq libfaketime iproute2; } || \
		echo "without libfaketime and iproute2 some of this is skipped"

FUZZ_SECONDS ?= 300
fuzz: ## Fuzz the codec and the framing (cargo-fuzz; the stable toolchain will do)
	@command -v cargo-fuzz >/dev/null || cargo install cargo-fuzz --locked
	cd fuzz && cargo run --example seed && for target in codec framing; do \
		RUSTC_BOOTSTRAP=1 cargo fuzz run $$target -- -max_total_time=$(FUZZ_SECONDS) -max_len=4096 || exit 1; done
