-- +goose Up

-- The attempt that registered a certificate stands in the certificate's row, so that it
-- needs no row of an index in the order of certificates, which changes a page of its own
-- for each: the certificate leads to it. Linked are the attempts that are found so.
-- Bodies of attempts are packed from here on, and those of before stay as they are.
ALTER TABLE certificates ADD COLUMN attempt TEXT NOT NULL DEFAULT '';
ALTER TABLE attempts ADD COLUMN linked BIGINT NOT NULL DEFAULT 0;
DROP INDEX attempts_by_certificate;
CREATE INDEX attempts_by_certificate ON attempts (certificate_id, id) WHERE certificate_id <> '' AND linked = 0;

-- +goose Down

-- Versions of before can't read packed bodies.
DELETE FROM attempt_made WHERE attempt IN (SELECT id FROM attempts WHERE typeof(body) = 'blob');
DELETE FROM attempts WHERE typeof(body) = 'blob';
-- What is linked is found by what it made.
INSERT INTO attempt_made (certificate_id, attempt)
    SELECT id, attempt FROM certificates WHERE attempt <> '' AND EXISTS (SELECT 1 FROM attempts WHERE attempts.id = certificates.attempt)
    ON CONFLICT (certificate_id, attempt) DO NOTHING;
DROP INDEX attempts_by_certificate;
CREATE INDEX attempts_by_certificate ON attempts (certificate_id, id) WHERE certificate_id <> '';
ALTER TABLE attempts DROP COLUMN linked;
ALTER TABLE certificates DROP COLUMN attempt;
