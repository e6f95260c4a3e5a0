-- +goose Up

-- Owned by internal/nodes: the nodes that have joined. Times are in milliseconds.
CREATE TABLE nodes (
    name        TEXT    NOT NULL PRIMARY KEY CHECK (name GLOB '[a-z0-9]*' AND length(name) <= 64),
    fingerprint BLOB    NOT NULL CHECK (length(fingerprint) = 32), -- SHA-256 of the public key with which the node has joined
    joined_at   INTEGER NOT NULL,
    joined_by   TEXT    NOT NULL, -- the operator who created the join token
    token       TEXT    NOT NULL, -- ID of that token
    labels      TEXT    NOT NULL DEFAULT '[]' CHECK (json_valid(labels)),
    version     TEXT    NOT NULL DEFAULT '', -- of the node's agent; empty: it has not connected yet
    seen_at     INTEGER,                     -- NULL: never
    revoked_at  INTEGER,                     -- NULL: valid
    drained_at  INTEGER,                     -- NULL: in service
    drained_by  TEXT    NOT NULL DEFAULT '',
    drained_for TEXT    NOT NULL DEFAULT ''  -- the reason of the operator
) STRICT;

-- Owned by internal/nodes: join tokens by hash.
CREATE TABLE joins (
    id         TEXT    NOT NULL PRIMARY KEY,
    hash       BLOB    NOT NULL UNIQUE CHECK (length(hash) = 32), -- SHA-256 of the secret
    names      TEXT    NOT NULL,           -- a name, or a prefix and *
    uses       INTEGER NOT NULL CHECK (uses >= 0), -- how many nodes may join; 0: any number
    used       INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL,
    created_by TEXT    NOT NULL,
    expires_at INTEGER NOT NULL,
    CHECK (uses = 0 OR used <= uses)
) STRICT;

-- +goose Down

DROP TABLE joins;
DROP TABLE nodes;
