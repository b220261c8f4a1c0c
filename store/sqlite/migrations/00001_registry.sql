-- +goose Up

-- The tenant column holds account/region. Times are milliseconds since 1970 in
-- UTC, flags are 0 or 1, and absent texts are empty, so that no column is NULL.
-- Rows that hold PEM or JSON stay in row id tables, which append; small ones live
-- in their primary key.

CREATE TABLE certificates (
    id               TEXT   NOT NULL,
    tenant           TEXT   NOT NULL,
    pem              TEXT   NOT NULL,
    status           TEXT   NOT NULL,
    mode             TEXT   NOT NULL,
    ca_id            TEXT   NOT NULL,
    owned_by         TEXT   NOT NULL,
    previous_owner   TEXT   NOT NULL,
    serial           TEXT   NOT NULL,
    subject          TEXT   NOT NULL,
    not_before       BIGINT NOT NULL,
    not_after        BIGINT NOT NULL,
    created_at       BIGINT NOT NULL,
    modified_at      BIGINT NOT NULL,
    customer_version BIGINT NOT NULL,
    generation_id    TEXT   NOT NULL,
    PRIMARY KEY (id, tenant)
);
CREATE INDEX certificates_by_time ON certificates (tenant, created_at, id);
CREATE INDEX certificates_by_ca ON certificates (tenant, ca_id, created_at, id) WHERE ca_id <> '';
CREATE INDEX certificates_by_serial ON certificates (serial) WHERE serial <> '';

CREATE TABLE ca_certificates (
    id                    TEXT   NOT NULL,
    tenant                TEXT   NOT NULL,
    pem                   TEXT   NOT NULL,
    status                TEXT   NOT NULL,
    mode                  TEXT   NOT NULL,
    auto_registration     BIGINT NOT NULL,
    registration          BIGINT NOT NULL,
    registration_body     TEXT   NOT NULL,
    registration_role     TEXT   NOT NULL,
    registration_template TEXT   NOT NULL,
    first_connection      TEXT   NOT NULL,
    owned_by              TEXT   NOT NULL,
    subject_key           TEXT   NOT NULL,
    subject               TEXT   NOT NULL,
    serial                TEXT   NOT NULL,
    not_before            BIGINT NOT NULL,
    not_after             BIGINT NOT NULL,
    created_at            BIGINT NOT NULL,
    modified_at           BIGINT NOT NULL,
    customer_version      BIGINT NOT NULL,
    generation_id         TEXT   NOT NULL,
    PRIMARY KEY (id, tenant)
);
CREATE INDEX ca_certificates_by_time ON ca_certificates (tenant, created_at, id);
CREATE INDEX ca_certificates_by_subject ON ca_certificates (tenant, subject_key, created_at, id);
CREATE INDEX ca_certificates_by_template ON ca_certificates (tenant, registration_template, created_at, id)
    WHERE registration_template <> '';

CREATE TABLE things (
    tenant        TEXT   NOT NULL,
    name          TEXT   NOT NULL,
    thing_id      TEXT   NOT NULL,
    type_name     TEXT   NOT NULL,
    billing_group TEXT   NOT NULL,
    attributes    TEXT   NOT NULL,
    version       BIGINT NOT NULL,
    created_at    BIGINT NOT NULL,
    modified_at   BIGINT NOT NULL,
    PRIMARY KEY (tenant, name)
) WITHOUT ROWID;
CREATE INDEX things_by_type ON things (tenant, type_name, name) WHERE type_name <> '';

CREATE TABLE thing_principals (
    tenant         TEXT   NOT NULL,
    thing          TEXT   NOT NULL,
    certificate_id TEXT   NOT NULL,
    exclusive      BIGINT NOT NULL,
    PRIMARY KEY (tenant, thing, certificate_id)
) WITHOUT ROWID;
-- It covers: SQLite would otherwise rather walk all of a tenant's primary keys,
-- because they have the order that is asked for.
CREATE INDEX thing_principals_by_certificate ON thing_principals (tenant, certificate_id, thing, exclusive);

CREATE TABLE policies (
    tenant          TEXT   NOT NULL,
    name            TEXT   NOT NULL,
    default_version BIGINT NOT NULL,
    last_version    BIGINT NOT NULL,
    created_at      BIGINT NOT NULL,
    modified_at     BIGINT NOT NULL,
    generation_id   TEXT   NOT NULL,
    PRIMARY KEY (tenant, name)
) WITHOUT ROWID;

CREATE TABLE policy_versions (
    tenant     TEXT   NOT NULL,
    policy     TEXT   NOT NULL,
    version    BIGINT NOT NULL,
    document   TEXT   NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, policy, version)
);

CREATE TABLE policy_attachments (
    tenant TEXT NOT NULL,
    target TEXT NOT NULL,
    policy TEXT NOT NULL,
    PRIMARY KEY (tenant, target, policy)
) WITHOUT ROWID;
CREATE INDEX policy_attachments_by_policy ON policy_attachments (tenant, policy, target);

CREATE TABLE templates (
    tenant               TEXT   NOT NULL,
    name                 TEXT   NOT NULL,
    type                 TEXT   NOT NULL,
    description          TEXT   NOT NULL,
    enabled              BIGINT NOT NULL,
    role_arn             TEXT   NOT NULL,
    hook_target_arn      TEXT   NOT NULL,
    hook_payload_version TEXT   NOT NULL,
    default_version      BIGINT NOT NULL,
    last_version         BIGINT NOT NULL,
    created_at           BIGINT NOT NULL,
    modified_at          BIGINT NOT NULL,
    PRIMARY KEY (tenant, name)
) WITHOUT ROWID;

CREATE TABLE template_versions (
    tenant     TEXT   NOT NULL,
    template   TEXT   NOT NULL,
    version    BIGINT NOT NULL,
    body       TEXT   NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, template, version)
);

CREATE TABLE tags (
    tenant TEXT NOT NULL,
    arn    TEXT NOT NULL,
    key    TEXT NOT NULL,
    value  TEXT NOT NULL,
    PRIMARY KEY (tenant, arn, key)
) WITHOUT ROWID;

CREATE TABLE tenant_settings (
    tenant            TEXT   NOT NULL,
    endpoint_prefix   TEXT   NOT NULL,
    registration_code TEXT   NOT NULL,
    created_at        BIGINT NOT NULL,
    PRIMARY KEY (tenant)
) WITHOUT ROWID;
CREATE UNIQUE INDEX tenant_settings_by_prefix ON tenant_settings (endpoint_prefix) WHERE endpoint_prefix <> '';

CREATE TABLE access_keys (
    id         TEXT   NOT NULL,
    account    TEXT   NOT NULL,
    user_name  TEXT   NOT NULL,
    secret     BLOB   NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (id)
) WITHOUT ROWID;
CREATE INDEX access_keys_by_account ON access_keys (account, id);

CREATE TABLE attempts (
    id             TEXT   NOT NULL,
    tenant         TEXT   NOT NULL,
    at             BIGINT NOT NULL,
    certificate_id TEXT   NOT NULL,
    serial         TEXT   NOT NULL,
    thing          TEXT   NOT NULL,
    client_id      TEXT   NOT NULL,
    address        TEXT   NOT NULL,
    ip             TEXT   NOT NULL,
    failed         BIGINT NOT NULL,
    body           TEXT   NOT NULL,
    PRIMARY KEY (id)
);
CREATE INDEX attempts_by_tenant ON attempts (tenant, id);
CREATE INDEX attempts_failed ON attempts (id) WHERE failed = 1;
CREATE INDEX attempts_failed_by_tenant ON attempts (tenant, id) WHERE failed = 1;
CREATE INDEX attempts_by_certificate ON attempts (certificate_id, id) WHERE certificate_id <> '';
CREATE INDEX attempts_by_serial ON attempts (serial, id) WHERE serial <> '';
CREATE INDEX attempts_by_thing ON attempts (thing, id) WHERE thing <> '';
-- A device whose client id is its thing's name, as most have it, is found by the
-- thing; an address with its port by the address alone.
CREATE INDEX attempts_by_client ON attempts (client_id, id) WHERE client_id <> '' AND client_id <> thing;
CREATE INDEX attempts_by_ip ON attempts (ip, id) WHERE ip <> '';

CREATE TABLE events (
    id      TEXT   NOT NULL,
    tenant  TEXT   NOT NULL,
    topic   TEXT   NOT NULL,
    payload TEXT   NOT NULL,
    at      BIGINT NOT NULL,
    PRIMARY KEY (id)
) WITHOUT ROWID;

CREATE TABLE issuances (
    id             TEXT   NOT NULL,
    tenant         TEXT   NOT NULL,
    profile        TEXT   NOT NULL,
    serial         TEXT   NOT NULL,
    subject        TEXT   NOT NULL,
    tbs_hash       TEXT   NOT NULL,
    at             BIGINT NOT NULL,
    certificate_id TEXT   NOT NULL,
    PRIMARY KEY (id)
);
CREATE INDEX issuances_by_tenant ON issuances (tenant, id);

-- One row that a readiness probe writes after a commit has failed.
CREATE TABLE readiness (
    id BIGINT NOT NULL,
    at BIGINT NOT NULL,
    PRIMARY KEY (id)
);

-- +goose Down

DROP TABLE readiness;
DROP TABLE issuances;
DROP TABLE events;
DROP TABLE attempts;
DROP TABLE access_keys;
DROP TABLE tenant_settings;
DROP TABLE tags;
DROP TABLE template_versions;
DROP TABLE templates;
DROP TABLE policy_attachments;
DROP TABLE policy_versions;
DROP TABLE policies;
DROP TABLE thing_principals;
DROP TABLE things;
DROP TABLE ca_certificates;
DROP TABLE certificates;
