# make help lists what there is. CI runs `make check`, which ends with the README's test command.

.DEFAULT_GOAL := help

PYTHON ?= python3
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.7.0

.PHONY: help build run check test fire attacks torch gpu fidelity fidelity-table captures vet lint fuzz bench clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  %-8s %s\n", $$1, $$2 }'

build: ## build ./spacehost
	go build -o spacehost ./cmd/spacehost

run: ## run the sample Space on simulated GPUs
	go run ./cmd/spacehost run examples/hello-zerogpu

check: vet lint test ## everything that CI runs

test: ## all tests: real gradio, spaces, clients and workers; only NVML is simulated
	go test -race -shuffle=on -timeout 40m ./...

fire: ## 100,000 charges, 1,000 workers with bad manners, 300 crashes of the host, a line's random million steps; figures at the end
	SPACEHOST_FIRE=1 go test -count=1 -v -timeout 60m -run '^TestFire$$|^TestThroughput$$|^TestRandomWalk$$' ./internal/lease ./quota
	SPACEHOST_FIRE=1 go test -count=1 -v -timeout 60m -run '^TestEveryWorkerIsEnded$$|^TestHostIsKilledAnywhere$$' ./cmd/spacehost

attacks: ## what Gradio's advisories describe, against all lines of Gradio
	SPACEHOST_ATTACKS=all go test -count=1 -timeout 20m -run '^(TestAttacks|TestGateAttacks|TestPasswordsAreNotGuessed)$$' ./cmd/spacehost

vet: ## gofmt and go vet
	@test -z "$$(gofmt -l .)" || { echo "not formatted:"; gofmt -l .; exit 1; }
	go vet ./...

lint: ## staticcheck, by the rules in staticcheck.conf
	go run $(STATICCHECK) ./...

fuzz: ## each fuzz target for ten seconds
	@for package in $$(go list ./...); do \
		for target in $$(go test -list '^Fuzz' $$package | grep '^Fuzz'); do \
			echo "$$package $$target"; \
			go test -run '^$$' -fuzz "^$$target\$$" -fuzztime 10s $$package || exit 1; \
		done; \
	done

bench: ## spacehost and plain Gradio side by side, in a table (half an hour; go run ./bench --help)
	go run ./bench

torch: ## a Space with the real torch on simulated GPUs (7 GB; SPACEHOST_TORCH=python uses what is there)
	SPACEHOST_TORCH=$${SPACEHOST_TORCH:-1} go test -race -count=1 -timeout 20m -v -run '^(TestTorchOnSimulatedGPUs|TestChainScript)$$' ./cmd/spacehost

gpu: build ## figures of the whole chain on a true GPU; PYTHON has torch, gradio and spaces
	$(PYTHON) bench/gpu/chain.py --spacehost ./spacehost

fidelity: ## compare with stock Gradio on every line, by both admissions (docs/fidelity.txt); start 5.12 and 6.0; who pays in each mode
	SPACEHOST_FIDELITY=1 go test -v -count=1 -timeout 60m -run '^(TestGradioTable|TestFidelity|TestOlderReleasesStart|TestPayerInEachMode)$$' ./cmd/spacehost

fidelity-table: ## write docs/gradio.md: which case tries what of Gradio
	SPACEHOST_FIDELITY=1 go test -count=1 -run '^TestGradioTable$$' ./cmd/spacehost

captures: ## retake what the tests replay from stock Gradio, of every line
	cd gradioapi/testdata/captures && go run take.go

clean: ## remove what build made; environments and state stay
	rm -f spacehost
