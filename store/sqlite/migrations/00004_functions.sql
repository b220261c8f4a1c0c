-- +goose Up

-- Functions, one row a version; the environment is sealed. The code is in files
-- that are named by its hash.
CREATE TABLE functions (
    tenant         TEXT   NOT NULL,
    name           TEXT   NOT NULL,
    version        TEXT   NOT NULL,
    runtime        TEXT   NOT NULL,
    handler        TEXT   NOT NULL,
    role           TEXT   NOT NULL,
    description    TEXT   NOT NULL,
    timeout        BIGINT NOT NULL,
    memory         BIGINT NOT NULL,
    code_sha256    TEXT   NOT NULL,
    code_size      BIGINT NOT NULL,
    environment    BLOB   NOT NULL,
    concurrency    BIGINT NOT NULL,
    revision_id    TEXT   NOT NULL,
    last_published BIGINT NOT NULL,
    modified_at    BIGINT NOT NULL,
    PRIMARY KEY (tenant, name, version)
) WITHOUT ROWID;
CREATE INDEX functions_by_code ON functions (code_sha256);
CREATE INDEX functions_by_handler ON functions (tenant, runtime, handler, name);
CREATE INDEX functions_by_version ON functions (tenant, version, name);

CREATE TABLE function_aliases (
    tenant        TEXT NOT NULL,
    function_name TEXT NOT NULL,
    name          TEXT NOT NULL,
    version       TEXT NOT NULL,
    description   TEXT NOT NULL,
    revision_id   TEXT NOT NULL,
    PRIMARY KEY (tenant, function_name, name)
) WITHOUT ROWID;

CREATE TABLE function_permissions (
    tenant         TEXT NOT NULL,
    function_name  TEXT NOT NULL,
    qualifier      TEXT NOT NULL,
    statement_id   TEXT NOT NULL,
    action         TEXT NOT NULL,
    principal      TEXT NOT NULL,
    source_arn     TEXT NOT NULL,
    source_account TEXT NOT NULL,
    PRIMARY KEY (tenant, function_name, qualifier, statement_id)
) WITHOUT ROWID;

-- Asynchronous runs that are owed. A row id table: payloads are large.
CREATE TABLE queued_calls (
    id            TEXT   NOT NULL,
    tenant        TEXT   NOT NULL,
    function_name TEXT   NOT NULL,
    qualifier     TEXT   NOT NULL,
    source_arn    TEXT   NOT NULL,
    attempt_id    TEXT   NOT NULL,
    failures      BIGINT NOT NULL,
    refusals      BIGINT NOT NULL,
    due_at        BIGINT NOT NULL,
    created_at    BIGINT NOT NULL,
    payload       BLOB   NOT NULL,
    PRIMARY KEY (id)
);
CREATE INDEX queued_calls_by_due ON queued_calls (due_at, id);
CREATE INDEX queued_calls_by_function ON queued_calls (tenant, function_name);

-- +goose Down

DROP TABLE queued_calls;
DROP TABLE function_permissions;
DROP TABLE function_aliases;
DROP TABLE functions;
