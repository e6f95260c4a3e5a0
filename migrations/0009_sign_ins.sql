-- +goose Up

-- Owned by internal/people: browsers that are signed in at one Space. Only the hash of the cookie is stored. A sign-in is
-- valid as long as its token. A sign-in without a token is the local visitor's, made by the link that `spacehost run`
-- prints.
CREATE TABLE sign_ins (
    hash       BLOB    NOT NULL PRIMARY KEY CHECK (length(hash) = 32),
    space      TEXT    NOT NULL CHECK (space <> ''),
    token      TEXT    REFERENCES tokens (id),
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;

CREATE INDEX sign_ins_token ON sign_ins (token);
