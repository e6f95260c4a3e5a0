-- +goose Up

-- What a token allows. Tokens of earlier versions allow everything that their person may do, at every Space and without an end.
ALTER TABLE tokens ADD COLUMN scope TEXT NOT NULL DEFAULT 'all' CHECK (scope IN ('call', 'read', 'all'));
ALTER TABLE tokens ADD COLUMN spaces TEXT CHECK (json_valid(spaces)); -- JSON list of the Spaces at which it is valid; NULL: at all
ALTER TABLE tokens ADD COLUMN expires_at INTEGER;                     -- NULL: never

-- 1: the configuration declares the token. Tokens that a person of the configuration has created stay valid when the file is
-- applied again.
ALTER TABLE tokens ADD COLUMN declared INTEGER NOT NULL DEFAULT 0 CHECK (declared IN (0, 1));
UPDATE tokens SET declared = 1 WHERE label = 'configuration' AND person IN (SELECT name FROM people WHERE source <> 'operator');

ALTER TABLE tokens ADD COLUMN created_by TEXT; -- ID of the token with which a person created it; NULL: none, such as for an operator

-- Owned by internal/audit: changes by operators and of people's own tokens. No secret is stored.
CREATE TABLE audit (
    id     INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    at     INTEGER NOT NULL,
    actor  TEXT    NOT NULL,
    origin TEXT    NOT NULL, -- the way of the change: cli, console or host
    action TEXT    NOT NULL,
    object TEXT    NOT NULL,
    fields TEXT    NOT NULL CHECK (json_valid(fields)),
    status INTEGER NOT NULL,
    detail TEXT    NOT NULL, -- why it was refused
    token  TEXT    NOT NULL DEFAULT '' -- ID of the token of the request; empty: none, as on the command line
) STRICT;

CREATE INDEX audit_at ON audit (at);

-- +goose StatementBegin
CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit
BEGIN
    SELECT RAISE(ABORT, 'the audit log is append only');
END;
-- +goose StatementEnd
