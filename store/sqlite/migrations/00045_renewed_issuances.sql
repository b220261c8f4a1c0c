-- +goose Up

-- What came of a certificate by renewal goes along when its key is lost, also when the row of
-- the renewal itself was trimmed. Most issuances renew nothing and cost nothing here.
CREATE INDEX issuances_by_renewed ON issuances (tenant, renews, id) WHERE renews <> '';

-- +goose Down

DROP INDEX issuances_by_renewed;
