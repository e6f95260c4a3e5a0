-- +goose Up

-- The authority that manages a person: the operator (spacehost user), the configuration of `spacehost serve` (config), or
-- none after the configuration has dropped the person (former). The account stays in the ledger, so the row stays too.
ALTER TABLE people ADD COLUMN source TEXT NOT NULL DEFAULT 'operator' CHECK (source IN ('operator', 'config', 'former'));
