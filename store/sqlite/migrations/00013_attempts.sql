-- +goose Up

-- Of a device that was let in, as nearly all are, the registry knows which certificate
-- its thing and serial number have: such attempts are found by the certificate, and
-- these two indices needn't be written for each.
ALTER TABLE attempts ADD COLUMN known BIGINT NOT NULL DEFAULT 0;
DROP INDEX attempts_by_serial;
DROP INDEX attempts_by_thing;
CREATE INDEX attempts_by_serial ON attempts (serial, id) WHERE serial <> '' AND known = 0;
CREATE INDEX attempts_by_thing ON attempts (thing, id) WHERE thing <> '' AND known = 0;

-- +goose Down

DROP INDEX attempts_by_serial;
DROP INDEX attempts_by_thing;
ALTER TABLE attempts DROP COLUMN known;
CREATE INDEX attempts_by_serial ON attempts (serial, id) WHERE serial <> '';
CREATE INDEX attempts_by_thing ON attempts (thing, id) WHERE thing <> '';
