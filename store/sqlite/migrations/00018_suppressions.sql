-- +goose Up

-- Resource is the key of a resource: its kind, id and version. Expires_at of one that
-- doesn't expire is the end of the year 9999, so that it is listed last. The body is
-- JSON: what nobody looks suppressions up by.
CREATE TABLE audit_suppressions (
    tenant     TEXT   NOT NULL,
    check_name TEXT   NOT NULL,
    resource   TEXT   NOT NULL,
    expires_at BIGINT NOT NULL,
    body       TEXT   NOT NULL,
    PRIMARY KEY (tenant, check_name, resource)
) WITHOUT ROWID;
CREATE INDEX audit_suppressions_by_expiry ON audit_suppressions (tenant, expires_at, check_name, resource);

-- +goose Down

DROP TABLE audit_suppressions;
