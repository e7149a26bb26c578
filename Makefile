# Everything that is done with Quorate, from a fresh clone: `make build`, `make dev`, `make test`.
# Needs Go 1.26, make, git and npm; gcc too for `make race`.

GO      ?= go
BIN     := bin
TOOLS   := $(BIN)/tools
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
INTEROP := opcua/interop
PEERS   := bench/opcua
BROWSER := admin/browser
SIEGE   := bench/siege
ETCD    := bench/etcd/server

.PHONY: build dev test race lint generate check-generate baseline fuzz bench-commit bench-etcd bench-opcua bench-failover bench-siege chaos chaos-short chaos-mutants test-interop chromium vendor-page clean help

help: ## Show this list.
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | sort | column -t -s "$$(printf '\t')"

build: ## Build bin/quorate.
	$(GO) build -trimpath -ldflags "-X main.version=$(VERSION)" -o $(BIN)/quorate ./cmd/quorate

dev: build ## Run three members with the demo topology. ARGS is passed through.
	$(BIN)/quorate dev $(ARGS)

test: $(INTEROP)/node_modules/.installed $(BROWSER)/node_modules/.installed ## Run all tests.
	$(GO) test -timeout 8m ./...

# Not the interop, browser and siege tests: their members are processes, which the detector does not see, gopcua's client races with itself when it renews,
# and the siege bounds what members take for a read, which the detector would only disturb. One package at a time, so that no other takes the time that its deadlines count on.
race: ## Run all other tests under the race detector.
	$(GO) test -race -p 1 -timeout 20m $$($(GO) list ./... | grep -v -e /$(INTEROP)$$ -e /$(BROWSER)$$ -e /$(SIEGE)$$)

test-interop: $(INTEROP)/node_modules/.installed ## Let OPC UA clients of others talk to real members. ARGS=-update writes docs/compatibility.md.
	$(GO) test -count 1 -timeout 5m ./$(INTEROP) $(ARGS)

chromium: ## Install the browser that the browser tests drive, if it is missing; as root, on Debian.
	command -v chromium || { apt-get update && apt-get install -y --no-install-recommends chromium; }

# The page's files of others are kept in the repository, so that building needs no npm; a test compares them with their packages.
vendor-page: $(BROWSER)/node_modules/.installed ## Copy what the web page is made of that others wrote.
	cp $(BROWSER)/node_modules/htmx.org/dist/htmx.min.js $(BROWSER)/node_modules/htmx.org/dist/ext/hx-sse.min.js \
	  $(BROWSER)/node_modules/uplot/dist/uPlot.iife.min.js $(BROWSER)/node_modules/uplot/dist/uPlot.min.css admin/static/

# The third-party OPC UA client of the interop tests, the server that the benchmark compares with, and what the web page and its tests are made of.
%/node_modules/.installed: %/package.json %/package-lock.json
	cd $* && npm ci --no-progress
	touch $@

# The tools are pinned in tools.mod, so that their dependencies stay out of go.mod.
$(TOOLS)/.installed: tools.mod tools.sum go.mod
	$(GO) build -modfile=tools.mod -o $(TOOLS)/ github.com/bufbuild/buf/cmd/buf google.golang.org/grpc/cmd/protoc-gen-go-grpc github.com/golangci/golangci-lint/v2/cmd/golangci-lint golang.org/x/vuln/cmd/govulncheck
	$(GO) build -o $(TOOLS)/ google.golang.org/protobuf/cmd/protoc-gen-go github.com/grpc-ecosystem/grpc-gateway/v2/protoc-gen-grpc-gateway github.com/grpc-ecosystem/grpc-gateway/v2/protoc-gen-openapiv2
	touch $@

lint: $(TOOLS)/.installed ## Run the linters over code and API.
	$(TOOLS)/golangci-lint run ./...
	$(TOOLS)/buf lint
	$(TOOLS)/buf breaking proto --against proto/baseline.binpb

generate: $(TOOLS)/.installed ## Write all generated code anew.
	$(TOOLS)/buf generate
	$(TOOLS)/buf generate --template buf.gen.rest.yaml
	$(GO) generate ./...

check-generate: generate ## Fail if the committed generated code is not what the generators give.
	git diff --exit-code -- proto rpc/openapi opcua/nodeset

baseline: $(TOOLS)/.installed ## Record the API that `buf breaking` compares with: once for each release.
	$(TOOLS)/buf build proto -o proto/baseline.binpb

FUZZTIME ?= 30s
fuzz: ## Run every fuzz target for FUZZTIME.
	@set -e; for p in $$($(GO) list ./...); do \
	  for f in $$($(GO) test -list '^Fuzz' $$p | grep '^Fuzz' || true); do \
	    echo "$$p $$f"; $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 50x $$p; \
	  done; \
	done

bench-commit: build ## Commits per second and latency: three processes, real fsync, bolt and wal.
	$(GO) run ./bench/commit -quorate $(BIN)/quorate $(ARGS)

# etcd is built in a module of its own, with the dependencies that its own release asks for.
$(BIN)/etcd: $(ETCD)/go.mod $(ETCD)/go.sum $(ETCD)/main.go
	$(GO) -C $(ETCD) build -trimpath -o $(abspath $@) .

bench-etcd: build $(BIN)/etcd ## Commits, reads, fail-overs and a million partitions beside etcd, held against floors and aims. ARGS=-quick takes 4 minutes.
	$(GO) run ./bench/etcd -quorate $(BIN)/quorate -etcd $(BIN)/etcd $(ARGS)

bench-opcua: build $(PEERS)/node_modules/.installed ## OPC UA reads, subscriptions and connects: cost and speed beside node-opcua's server.
	$(GO) run ./bench/opcua -quorate $(BIN)/quorate $(ARGS)

bench-siege: build ## Attack a group in every way, and measure what others feel of it. Fails if they feel too much.
	$(GO) run ./bench/siege -quorate $(BIN)/quorate $(ARGS)

bench-failover: build ## From a publish or a kill to what clients notice: levels, swaps and fail-overs of three processes.
	$(GO) run ./bench/failover -quorate $(BIN)/quorate $(ARGS)

# As root, on a machine with loop devices, FUSE and TUN. Everything that it makes is inside namespaces of its own, and goes with it.
chaos: build ## Break a group in every way for 10 minutes, and judge what its clients saw. CHAOS_ARGS is passed through: --duration 2m --seed 7.
	$(GO) build -o $(BIN)/chaos-run ./jepsen
	$(BIN)/chaos-run --quorate $(BIN)/quorate $(CHAOS_ARGS)

# What can be shown in two minutes: at least one fault of each kind of thing that breaks. Two faults at a time leave the group without a quorum for half of it on a
# bad day, so fewer operations have to end than in a long run.
CHAOS_SHORT := kill,kill-majority,pause,isolate-from-all,one-way,lossy,reset,power-loss,power-loss-all,disk-stall,fsync-error,truncate-log,wall-clock,transfer-storm,replace
chaos-short: ## The two minutes of chaos that belong to every change.
	$(MAKE) chaos CHAOS_ARGS="--duration 2m --seed 7 --enough 10000 --nemeses $(CHAOS_SHORT) $(CHAOS_ARGS)"

# Each in a run of its own, in which one rule is broken that the product keeps (package mutant).
chaos-mutants: ## Prove that the checks of chaos notice broken rules, each within 5 minutes.
	$(GO) build -tags mutant -o $(BIN)/quorate-mutant ./cmd/quorate
	$(GO) build -o $(BIN)/chaos-run ./jepsen
	for m in no-sync unconfirmed no-barrier wall-clock serving-for-ever open-gates; do \
	  $(BIN)/chaos-run --quorate $(BIN)/quorate-mutant --mutant $$m --out $(BIN)/chaos-mutants $(CHAOS_ARGS) || exit 1; done

clean: ## Remove what was built.
	rm -rf $(BIN) $(INTEROP)/node_modules $(PEERS)/node_modules $(BROWSER)/node_modules
