-- +goose Up

-- Who has the say over a person: the operator (spacehost user), the configuration of `spacehost serve` (config), or
-- nobody, since the configuration has dropped them (former). Their account stays in the ledger, so the row stays too.
ALTER TABLE people ADD COLUMN source TEXT NOT NULL DEFAULT 'operator' CHECK (source IN ('operator', 'config', 'former'));
