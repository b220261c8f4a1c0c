#!/bin/sh
# Undoes one thing at a time and runs the tests that should notice: a line
# "SURVIVES" is a thing that no test holds. Usage: ./audit3.sh [name]
set -u
cd "$(dirname "$0")"
export CGO_ENABLED=0
try() { # name, file, sed expression, packages
	[ $# -ge 4 ] || return
	[ -z "${only:-}" ] || [ "$only" = "$1" ] || return
	name=$1 file=$2 edit=$3; shift 3
	sed -i "$edit" "$file"
	if git diff --quiet -- "$file"; then echo "NOT APPLIED $name"; return; fi
	if go test "$@" >/tmp/audit3.log 2>&1; then echo "SURVIVES $name ($*)"; else echo "noticed $name"; fi
	git checkout -q -- "$file"
}
only=${1:-}
try server-initiated broker/lifecycle.go 's/return "SERVER_INITIATED_DISCONNECT"/return "X"/' ./broker ./gateway
try websocket-ttl broker/lifecycle.go 's/return "WEBSOCKET_TTL_EXPIRATION"/return "X"/' ./broker ./gateway
try server-error broker/lifecycle.go 's/return "SERVER_ERROR"/return "X"/' ./broker ./gateway
try persistent-connect broker/connect.go 's/attributes |= policy.PersistentConnect/attributes |= 0/' ./broker ./gateway ./policy
try last-will broker/connect.go 's/attributes |= policy.LastWill/attributes |= 0/' ./broker ./gateway ./policy
try last-will-topic broker/connect.go 's/request.LastWillTopic = .*/request.LastWillTopic = ""/' ./broker ./gateway ./policy
try timed-publish broker/publish.go 's/if bound.policies.Timeless() {/if true {/' ./broker ./gateway ./policy
try timed-receive broker/publish.go 's/if known \&\& bound.policies.Timeless() {/if known {/' ./broker ./gateway ./policy
try shortest-expiry broker/publish.go 's/minExpiry = 1$/minExpiry = 0/' ./broker ./gateway
try retained-quota-sweep broker/retained.go '/^\t\tb.sweepRetained(r)$/d' ./broker ./gateway
try retained-expired-api broker/retained.go 's/if err == nil && !found.ExpiresAt.IsZero() && !found.ExpiresAt.After(b.clock()) {/if false {/' ./broker ./gateway ./awsapi/iotdata
try websocket-day gateway/websocket.go 's/const maxWebSocketLife = 24/const maxWebSocketLife = 48/' ./broker ./gateway
try long-alias broker/publish.go 's/c.aliases\[alias-1\] = ""/_ = alias/' ./broker ./gateway
try exclusive-thing broker/lifecycle.go 's/attached != nil && attached.Exclusive/attached != nil/' ./broker ./gateway
for flag in 's/"session-expiry", time.Hour/"session-expiry", 2*time.Hour/' 's/"max-retained", 5000/"max-retained", 4000/' 's/"publish-rate", 100/"publish-rate", 300/' \
	's/"throughput-rate", 512<<10/"throughput-rate", 1<<20/' 's/"max-client-id-bytes", 128/"max-client-id-bytes", 200/' 's/"max-topic-bytes", 256/"max-topic-bytes", 290/' \
	's/"max-session-messages", 10_000/"max-session-messages", 9_000/'; do
	try "default $flag" cmd/imprint/mqttconfig.go "$flag" . ./cmd/imprint
done
