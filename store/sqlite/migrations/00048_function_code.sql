-- +goose Up

-- What an account's functions have of code is bounded, and counted whenever code comes.
CREATE INDEX functions_by_tenant_code ON functions (tenant, code_sha256, code_size);

-- +goose Down

DROP INDEX functions_by_tenant_code;
