-- +goose Up

CREATE TABLE pending_certificates (
    tenant         TEXT   NOT NULL,
    certificate_id TEXT   NOT NULL,
    claim          TEXT   NOT NULL,
    client_id      TEXT   NOT NULL,
    token_hash     TEXT   NOT NULL,
    created_at     BIGINT NOT NULL,
    expires_at     BIGINT NOT NULL,
    used           BIGINT NOT NULL,
    PRIMARY KEY (tenant, certificate_id)
) WITHOUT ROWID;
CREATE INDEX pending_certificates_by_expiry ON pending_certificates (expires_at);

CREATE TABLE provisioning_claims (
    tenant         TEXT   NOT NULL,
    certificate_id TEXT   NOT NULL,
    template       TEXT   NOT NULL,
    requested_by   TEXT   NOT NULL,
    created_at     BIGINT NOT NULL,
    expires_at     BIGINT NOT NULL,
    device         TEXT   NOT NULL,
    thing          TEXT   NOT NULL,
    devices        BIGINT NOT NULL,
    PRIMARY KEY (tenant, certificate_id)
) WITHOUT ROWID;
CREATE INDEX provisioning_claims_by_expiry ON provisioning_claims (expires_at);

CREATE TABLE certificate_providers (
    tenant       TEXT   NOT NULL,
    name         TEXT   NOT NULL,
    function_arn TEXT   NOT NULL,
    operations   TEXT   NOT NULL,
    created_at   BIGINT NOT NULL,
    modified_at  BIGINT NOT NULL,
    PRIMARY KEY (tenant, name)
) WITHOUT ROWID;

-- Networks are CIDR prefixes with spaces between them.
CREATE TABLE claim_guards (
    tenant           TEXT   NOT NULL,
    claim            TEXT   NOT NULL,
    quota            BIGINT NOT NULL,
    not_before       BIGINT NOT NULL,
    not_after        BIGINT NOT NULL,
    networks         TEXT   NOT NULL,
    serial_parameter TEXT   NOT NULL,
    serial_reuse     BIGINT NOT NULL,
    max_requests     BIGINT NOT NULL,
    max_refusals     BIGINT NOT NULL,
    time_window      BIGINT NOT NULL,
    devices          BIGINT NOT NULL,
    serials          BIGINT NOT NULL,
    stopped_at       BIGINT NOT NULL,
    stop_code        TEXT   NOT NULL,
    stop_reason      TEXT   NOT NULL,
    created_at       BIGINT NOT NULL,
    modified_at      BIGINT NOT NULL,
    PRIMARY KEY (tenant, claim)
) WITHOUT ROWID;

CREATE TABLE claim_serials (
    tenant TEXT NOT NULL,
    claim  TEXT NOT NULL,
    serial TEXT NOT NULL,
    device TEXT NOT NULL,
    PRIMARY KEY (tenant, claim, serial)
) WITHOUT ROWID;

-- +goose Down

DROP TABLE claim_serials;
DROP TABLE claim_guards;
DROP TABLE certificate_providers;
DROP TABLE provisioning_claims;
DROP TABLE pending_certificates;
