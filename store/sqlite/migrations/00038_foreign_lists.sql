-- +goose Up

CREATE TABLE foreign_lists (
    id              BIGINT NOT NULL,
    tenant          TEXT   NOT NULL,
    ca_id           TEXT   NOT NULL,
    scope           TEXT   NOT NULL,
    ca_pem          TEXT   NOT NULL,
    subject_key     TEXT   NOT NULL,
    number          TEXT   NOT NULL,
    this_update     BIGINT NOT NULL,
    next_update     BIGINT NOT NULL,
    hash            TEXT   NOT NULL,
    entries         BIGINT NOT NULL,
    generation      BIGINT NOT NULL,
    applied         BIGINT NOT NULL,
    refuse_stale    BIGINT NOT NULL,
    keep_registered BIGINT NOT NULL,
    url             TEXT   NOT NULL,
    due_at          BIGINT NOT NULL,
    fetch_at        BIGINT NOT NULL,
    fetched_at      BIGINT NOT NULL,
    imported_at     BIGINT NOT NULL,
    failures        BIGINT NOT NULL,
    last_error      TEXT   NOT NULL,
    PRIMARY KEY (id)
);
CREATE UNIQUE INDEX foreign_lists_by_ca ON foreign_lists (tenant, ca_id, scope);
CREATE INDEX foreign_lists_by_subject ON foreign_lists (tenant, subject_key, scope, ca_id);
CREATE INDEX foreign_lists_due ON foreign_lists (due_at, id);

CREATE TABLE foreign_revocations (
    list       BIGINT NOT NULL,
    generation BIGINT NOT NULL,
    serial     TEXT   NOT NULL,
    revoked_at BIGINT NOT NULL,
    reason     BIGINT NOT NULL,
    PRIMARY KEY (list, generation, serial)
) WITHOUT ROWID;

-- +goose Down

DROP TABLE foreign_revocations;
DROP TABLE foreign_lists;
