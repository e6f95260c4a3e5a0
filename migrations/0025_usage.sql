-- +goose Up

-- The name of the function, by which usage is summed. task is the id that the spaces package sends.
ALTER TABLE leases ADD COLUMN function TEXT NOT NULL DEFAULT '';
UPDATE leases SET function = coalesce((SELECT task FROM ledger WHERE lease_id = leases.id AND kind = 'hold'), '');

-- For the declared and used seconds of one account's calls since a time.
CREATE INDEX ledger_settled ON ledger (identity, at) WHERE kind = 'settle';

-- Owned by quota: how many calls were refused in the minute that begins at `at`.
CREATE TABLE refusals (
    at       INTEGER NOT NULL,
    identity TEXT    NOT NULL,
    space    TEXT    NOT NULL,
    function TEXT    NOT NULL,
    tier     TEXT    NOT NULL,
    calls    INTEGER NOT NULL CHECK (calls > 0),
    PRIMARY KEY (at, identity, space, function, tier)
) STRICT, WITHOUT ROWID;

-- +goose Down

DROP TABLE refusals;
DROP INDEX ledger_settled;
ALTER TABLE leases DROP COLUMN function;
