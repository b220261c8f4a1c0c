# Everything a person types. `make demo` needs nothing but Go.
GO      ?= go
VERSION ?=
LDFLAGS := -s -w $(if $(VERSION),-X main.release=$(VERSION))

export CGO_ENABLED ?= 0

.PHONY: demo run test test-system-race build check generate tools clean

build: ## the program, static, at bin/imprint
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/imprint ./cmd/imprint

demo: build ## a server in a temporary directory, devices through the main job, the timeline
	$(GO) run -trimpath ./cmd/demo -imprint bin/imprint

run: build ## the server, for real use, with its data in ./imprint-data
	./bin/imprint serve

test: tools build ## all tests, those of the rooms with the race detector, with the real AWS CLI, mosquitto and openssl
	CGO_ENABLED=1 IMPRINT_CI=1 $(GO) test -race -timeout 18m $$($(GO) list ./... | grep -v -e '/test$$' -e '/bench$$')
	IMPRINT_CI=1 $(GO) test -timeout 5m -tags kafka -run Kafka ./rules
	IMPRINT_CI=1 $(GO) test -timeout 18m ./test ./bench

test-system-race: tools build ## the whole-system tests against a server with the race detector, which takes as long as all others
	CGO_ENABLED=1 IMPRINT_CI=1 $(GO) test -race -timeout 30m ./test ./bench

tools: ## Debian packages that the tests need, where they are missing
	./scripts/test-tools

check: ## formatting, vet, staticcheck, generated files
	./scripts/check

generate: ## generated Go files and the generated pages of docs/
	$(GO) generate ./...

clean:
	rm -rf bin
