-- +goose Up

CREATE TABLE rollovers (
    tenant       TEXT   NOT NULL,
    from_ca      TEXT   NOT NULL,
    to_ca        TEXT   NOT NULL,
    devices      BIGINT NOT NULL,
    certificates BIGINT NOT NULL,
    last_end     BIGINT NOT NULL,
    renew_from   BIGINT NOT NULL,
    renew_until  BIGINT NOT NULL,
    started_at   BIGINT NOT NULL,
    started_by   TEXT   NOT NULL,
    PRIMARY KEY (tenant, from_ca)
) WITHOUT ROWID;

CREATE TABLE sightings (
    tenant         TEXT   NOT NULL,
    certificate_id TEXT   NOT NULL,
    first_at       BIGINT NOT NULL,
    last_at        BIGINT NOT NULL,
    PRIMARY KEY (tenant, certificate_id)
) WITHOUT ROWID;

-- +goose Down

DROP TABLE sightings;
DROP TABLE rollovers;
