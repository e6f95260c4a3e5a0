-- +goose Up

-- 1: the operator has revoked the token (spacehost token revoke). A configuration that still declares the token does not make
-- it valid again. 0: the token is valid, or was removed from the configuration.
ALTER TABLE tokens ADD COLUMN revoked_by_command INTEGER NOT NULL DEFAULT 0 CHECK (revoked_by_command IN (0, 1));
