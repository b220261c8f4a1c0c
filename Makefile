# Everything a person types. `make demo` needs nothing but Go.
GO      ?= go
VERSION ?=
LDFLAGS := -s -w $(if $(VERSION),-X main.release=$(VERSION))

export CGO_ENABLED ?= 0

.PHONY: demo run test build pkcs11-helper check generate tools clean

build: ## the program, static, at bin/imprint
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/imprint ./cmd/imprint

pkcs11-helper: ## the process that loads PKCS#11 modules (HSMs), at bin/imprint-pkcs11; needs a C compiler
	CGO_ENABLED=1 $(GO) build -trimpath -tags pkcs11 -ldflags '$(LDFLAGS)' -o bin/imprint-pkcs11 ./cmd/imprint-pkcs11

demo: build ## a server in a temporary directory, devices through the main job, the timeline
	$(GO) run -trimpath ./cmd/demo -imprint bin/imprint

run: build ## the server, for real use, with its data in ./imprint-data
	./bin/imprint serve

# SQLite, translated from C, takes most of the time with the race detector, and
# its memory is its own.
RACE := -race -gcflags=modernc.org/sqlite/lib=-race=false -gcflags=modernc.org/libc=-race=false

# Those of the whole-system tests that put most weight on the server at once.
STORMS := 'EveryAbuse|KillAtAnyMoment'

# Rooms whose tests start programs, and take twice as long with the race detector without
# that it sees more: what they call is tested with it in rooms of its own.
PLAIN := ./test ./bench ./pki/translog/... ./cmd/imprint ./awsapi/iot

test: tools build ## all tests with the race detector, with the real AWS CLI, mosquitto and openssl; of those of the whole system some
	CGO_ENABLED=1 IMPRINT_CI=1 $(GO) test $(RACE) -timeout 18m $$($(GO) list ./... | grep -v -e '/test$$' -e '/bench$$' -e '/pki/translog' -e '/cmd/imprint$$' -e '/awsapi/iot$$')
	IMPRINT_CI=1 $(GO) test -timeout 18m $(PLAIN)
	CGO_ENABLED=1 IMPRINT_CI=1 $(GO) test $(RACE) -timeout 18m -run $(STORMS) ./test
	IMPRINT_CI=1 $(GO) test -timeout 5m -tags kafka -run Kafka ./rules
	IMPRINT_CI=1 $(GO) test -timeout 5m -tags awskms -run KMS ./pki/keys

test-system-race: tools build ## all tests of these rooms with the race detector
	CGO_ENABLED=1 IMPRINT_CI=1 $(GO) test $(RACE) -timeout 30m $(PLAIN)

tools: ## Debian packages that the tests need, where they are missing
	./scripts/test-tools

check: ## formatting, vet, staticcheck, generated files
	./scripts/check

generate: ## generated Go files and the generated pages of docs/
	$(GO) generate ./...

clean:
	rm -rf bin
