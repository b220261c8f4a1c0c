-- +goose Up

-- How many certificates an authority signed by a profile: what a profile's bound is held
-- against, without counting them each time.
CREATE TABLE profile_uses (
    tenant    TEXT   NOT NULL,
    authority TEXT   NOT NULL,
    profile   TEXT   NOT NULL,
    uses      BIGINT NOT NULL,
    PRIMARY KEY (tenant, authority, profile)
) WITHOUT ROWID;
INSERT INTO profile_uses (tenant, authority, profile, uses)
    SELECT tenant, authority, profile, count(*) FROM issuances WHERE authority <> '' AND certificate_id <> '' GROUP BY tenant, authority, profile;

-- +goose Down

DROP TABLE profile_uses;
