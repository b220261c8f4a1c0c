-- +goose Up

-- Which issuance a certificate came of. Intents aren't in it.
CREATE INDEX IF NOT EXISTS issuances_by_certificate ON issuances (tenant, certificate_id) WHERE certificate_id <> '';

-- +goose Down

DROP INDEX IF EXISTS issuances_by_certificate;
