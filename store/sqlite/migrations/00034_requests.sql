-- +goose Up

-- What a request with a token asked for: a token is for one request alone.
ALTER TABLE issuances ADD COLUMN request_hash TEXT NOT NULL DEFAULT '';

-- +goose Down

ALTER TABLE issuances DROP COLUMN request_hash;
