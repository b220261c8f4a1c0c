-- +goose Up

CREATE TABLE renewals (
    tenant      TEXT   NOT NULL,
    certificate TEXT   NOT NULL,
    renews      TEXT   NOT NULL,
    state       TEXT   NOT NULL,
    created_at  BIGINT NOT NULL,
    proven_at   BIGINT NOT NULL,
    due_at      BIGINT NOT NULL,
    ended_at    BIGINT NOT NULL,
    reason      TEXT   NOT NULL,
    PRIMARY KEY (tenant, certificate)
);
CREATE INDEX renewals_by_old ON renewals (tenant, renews, created_at, certificate);
CREATE INDEX renewals_due ON renewals (due_at, tenant, certificate) WHERE state = 'PROVEN';
CREATE INDEX renewals_open ON renewals (tenant, certificate) WHERE state IN ('PENDING', 'PROVEN');
CREATE INDEX renewals_ended ON renewals (ended_at, tenant, certificate) WHERE ended_at > 0;

-- Certificates of the built-in CA end with 2049 and aren't in it: their first connection
-- pays nothing for it.
CREATE INDEX certificates_by_end ON certificates (tenant, not_after, id) WHERE not_after < 2524607999000;

-- +goose Down

DROP INDEX certificates_by_end;
DROP TABLE renewals;
