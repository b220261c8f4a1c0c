-- +goose Up

-- Which issuance a certificate came of. Intents aren't in it.
CREATE INDEX issuances_certificate ON issuances (certificate_id) WHERE certificate_id <> '';

-- +goose Down

DROP INDEX issuances_certificate;
