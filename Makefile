# Shopbell. `make` prints this help.

SHELL := /bin/bash
GO := go
TOOLS := $(CURDIR)/bin/tools
MODULES := proto pkg services
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -X shopbell.dev/pkg/run.Version=$(VERSION)
ROOMS := ingest subscription sender log gateway

.DEFAULT_GOAL := help
.PHONY: help
help: ## print this help
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: run
run: bin/shopbell ## run everything in one process on 127.0.0.1:8080, with a demonstration
	bin/shopbell demo

.PHONY: test
test: ## run all tests
	$(GO) test -timeout 15m work

.PHONY: test-race
test-race: ## run all tests but the end-to-end ones under the race detector
	$(GO) test -race -timeout 15m $$($(GO) list work | grep -v /e2e)

.PHONY: build
build: bin/shopbell ## build all programs into bin/
	@for room in $(ROOMS); do \
		$(GO) build -trimpath -ldflags "$(LDFLAGS)" -o bin/$$room ./services/$$room/cmd/$$room || exit 1; done

.PHONY: bin/shopbell
bin/shopbell:
	@$(GO) build -trimpath -ldflags "$(LDFLAGS)" -o $@ ./services/shopbell/cmd/shopbell

.PHONY: bench
bench: bin/shopbell ## measure the whole pipeline beside a bare HTTP client (some minutes; run nothing else)
	$(GO) run ./services/shopbell/bench -shopbell bin/shopbell

.PHONY: bench-log
bench-log: ## measure the log's stores with ten million attempts (some 20 minutes, 25 GB below /tmp; run nothing else); make bench-log ROWS=100000 is quick
	$(GO) run ./services/log/bench -rows $(or $(ROWS),10000000)

.PHONY: bench-isolation
bench-isolation: bin/shopbell ## measure what receivers that hang, die or flood do to the others (a quarter of an hour; run nothing else); make bench-isolation ONLY=3,5 runs two
	$(GO) run ./services/shopbell/bench isolation -shopbell bin/shopbell $(if $(ONLY),-only $(ONLY))

.PHONY: bench-kills
bench-kills: ## kill -9 one of three senders every 10 s while half of 20,000 receivers are away, and count what becomes of it (some three minutes)
	$(GO) run ./services/shopbell/bench kills

.PHONY: bench-replay
bench-replay: bin/shopbell ## measure a replay of 100,000 with kill -9 in it, beside live events (some two minutes; run nothing else)
	$(GO) run ./services/shopbell/bench replay -shopbell bin/shopbell

.PHONY: check
check: vet alone lint ## vet, every module by itself, lint and format

.PHONY: vet
vet:
	$(GO) vet work

.PHONY: alone
alone: # every module builds without the workspace too, and its go.mod is tidy
	@for m in $(MODULES); do \
		echo "$$m by itself"; (cd $$m && GOWORK=off $(GO) build ./... && GOWORK=off $(GO) vet ./... && GOWORK=off $(GO) mod tidy -diff) || exit 1; done

.PHONY: lint
lint: $(TOOLS)/golangci-lint ## lint and check the format of all Go code
	$(TOOLS)/golangci-lint run $$($(GO) list -m -f '{{.Dir}}/...')

.PHONY: format
format: $(TOOLS)/golangci-lint ## format all Go code
	$(TOOLS)/golangci-lint fmt $$($(GO) list -m -f '{{.Dir}}/...')

.PHONY: gen
gen: $(TOOLS)/buf ## check the protos and generate code from them
	cd proto && $(TOOLS)/buf lint && $(TOOLS)/buf generate

.PHONY: gen-check
gen-check: gen ## fail when the generated code is not that of the protos, or when a proto breaks its users
	@git diff --exit-code -- proto || { echo "proto/ has changed: run make gen and commit what it writes"; exit 1; }
	@if git rev-parse -q --verify HEAD~1 >/dev/null && git cat-file -e HEAD~1:proto/buf.yaml 2>/dev/null; then \
		cd proto && $(TOOLS)/buf breaking --against '../.git#ref=HEAD~1,subdir=proto'; fi

# The tools are needed by nobody who only builds. Each is built from a pinned version.
$(TOOLS)/buf: deploy/tools/go.mod deploy/tools/go.sum
	GOWORK=off GOBIN=$(TOOLS) $(GO) -C deploy/tools install tool
	@touch $@

$(TOOLS)/golangci-lint: deploy/tools/lint/go.mod deploy/tools/lint/go.sum
	GOWORK=off GOBIN=$(TOOLS) $(GO) -C deploy/tools/lint install tool
	@touch $@
