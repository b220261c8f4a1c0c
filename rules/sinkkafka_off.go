//go:build !kafka

package rules

// openKafkaSink says what a build without Kafka needs.
func openKafkaSink(at *sinkAddress) (Sink, error) {
	return nil, at.refuse("this build has no Kafka client").
		WithHint("Build it in: go build -tags kafka ./cmd/imprint. Nothing else changes.")
}
