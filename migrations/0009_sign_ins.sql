-- +goose Up

-- Owned by internal/identity: browsers that somebody has signed in at one Space. Only the hash of what their cookie says is
-- kept. A sign-in is as good as the token that it was made with; without one it is the local visitor's, who came by the
-- link that `spacehost run` prints.
CREATE TABLE sign_ins (
    hash       BLOB    NOT NULL PRIMARY KEY CHECK (length(hash) = 32),
    space      TEXT    NOT NULL CHECK (space <> ''),
    token      TEXT    REFERENCES tokens (id),
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;

CREATE INDEX sign_ins_token ON sign_ins (token);
