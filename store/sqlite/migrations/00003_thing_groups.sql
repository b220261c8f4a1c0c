-- +goose Up

-- A group's place is the names from its root down to itself, with slashes
-- between them, so that what is below it is a range.
CREATE TABLE thing_groups (
    tenant      TEXT   NOT NULL,
    name        TEXT   NOT NULL,
    group_id    TEXT   NOT NULL,
    parent      TEXT   NOT NULL,
    place       TEXT   NOT NULL,
    description TEXT   NOT NULL,
    attributes  TEXT   NOT NULL,
    version     BIGINT NOT NULL,
    created_at  BIGINT NOT NULL,
    modified_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, name)
) WITHOUT ROWID;
CREATE INDEX thing_groups_by_parent ON thing_groups (tenant, parent, name);
CREATE UNIQUE INDEX thing_groups_by_place ON thing_groups (tenant, place);

CREATE TABLE thing_group_members (
    tenant     TEXT NOT NULL,
    thing      TEXT NOT NULL,
    group_name TEXT NOT NULL,
    PRIMARY KEY (tenant, thing, group_name)
) WITHOUT ROWID;
CREATE INDEX thing_group_members_by_group ON thing_group_members (tenant, group_name, thing);

-- +goose Down

DROP TABLE thing_group_members;
DROP TABLE thing_groups;
