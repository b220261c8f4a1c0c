-- +goose Up

-- A label is one of the whole server. Settings are JSON.
CREATE TABLE enrolment_labels (
    name       TEXT   NOT NULL,
    tenant     TEXT   NOT NULL,
    authority  TEXT   NOT NULL,
    profile    TEXT   NOT NULL,
    settings   TEXT   NOT NULL,
    created_at BIGINT NOT NULL,
    changed_at BIGINT NOT NULL,
    PRIMARY KEY (name)
);
CREATE INDEX enrolment_labels_by_tenant ON enrolment_labels (tenant, name);

CREATE TABLE enrolment_passwords (
    id         TEXT   NOT NULL,
    tenant     TEXT   NOT NULL,
    label      TEXT   NOT NULL,
    hash       BLOB   NOT NULL,
    subject    TEXT   NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    used_at    BIGINT NOT NULL,
    authority  TEXT   NOT NULL,
    serial     TEXT   NOT NULL,
    PRIMARY KEY (id)
);
CREATE INDEX enrolment_passwords_by_label ON enrolment_passwords (tenant, label, id);
CREATE INDEX enrolment_passwords_by_end ON enrolment_passwords (expires_at, id);

-- +goose Down

DROP TABLE enrolment_passwords;
DROP TABLE enrolment_labels;
