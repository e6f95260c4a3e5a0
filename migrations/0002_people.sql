-- +goose Up

-- Owned by internal/people, like tokens. All times are UTC in unix milliseconds, as in 0001.
-- Names are part of account keys, logs, paths and command lines. The CHECK ensures that no name needs quotes or looks
-- like a flag or "..".
CREATE TABLE people (
    name       TEXT    NOT NULL PRIMARY KEY
        CHECK (length(name) <= 64 AND name GLOB '[a-z0-9]*' AND name NOT GLOB '*[^a-z0-9._-]*'),
    tier       TEXT    NOT NULL CHECK (tier <> ''),
    created_at INTEGER NOT NULL,
    created_by TEXT    NOT NULL
) STRICT;

-- Bearer tokens (sph_...), stored only as hashes. A token has 256 random bits and cannot be guessed, so its SHA-256 needs
-- neither a salt nor a slow hash. Revoked tokens are kept for later audits.
CREATE TABLE tokens (
    id           TEXT    NOT NULL PRIMARY KEY, -- public: names the token in lists
    person       TEXT    NOT NULL REFERENCES people (name),
    hash         BLOB    NOT NULL UNIQUE CHECK (length(hash) = 32),
    label        TEXT    NOT NULL DEFAULT '',
    created_at   INTEGER NOT NULL,
    last_used_at INTEGER,                      -- to the minute
    revoked_at   INTEGER
) STRICT;

CREATE INDEX tokens_person ON tokens (person);
