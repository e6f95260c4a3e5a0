-- +goose Up

-- Owned by internal/identity, as is tokens. Times are those of 0001: UTC in unix milliseconds.
-- A name goes into account keys, logs, paths and command lines, so none needs quotes or looks like a flag or "..".
CREATE TABLE people (
    name       TEXT    NOT NULL PRIMARY KEY
        CHECK (length(name) <= 64 AND name GLOB '[a-z0-9]*' AND name NOT GLOB '*[^a-z0-9._-]*'),
    tier       TEXT    NOT NULL CHECK (tier <> ''),
    created_at INTEGER NOT NULL,
    created_by TEXT    NOT NULL
) STRICT;

-- Bearer tokens (sph_...), of which only the hash is kept. A token is 256 random bits: nobody finds it by trying, so
-- its plain SHA-256 needs neither salt nor a slow hash. A revoked one stays, to be seen by whoever looks into it later.
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
