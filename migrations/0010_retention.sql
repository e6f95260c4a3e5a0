-- +goose Up

-- Entries of a window may be deleted only while its column forgetting is 1. It is set and cleared within one transaction,
-- so it is 0 between transactions. All other entries stay append-only.
ALTER TABLE windows ADD COLUMN forgetting INTEGER NOT NULL DEFAULT 0 CHECK (forgetting IN (0, 1));

-- Finds windows that ended long ago without a full scan.
CREATE INDEX windows_ends ON windows (ends_at);

DROP TRIGGER ledger_no_delete;

-- +goose StatementBegin
CREATE TRIGGER ledger_no_delete BEFORE DELETE ON ledger
WHEN NOT EXISTS (SELECT 1 FROM windows WHERE id = OLD.window_id AND forgetting = 1)
BEGIN
    SELECT RAISE(ABORT, 'the ledger is append only');
END;
-- +goose StatementEnd

-- The sums equal the remaining entries, even while a window is only partly deleted. The via sums are not updated: they
-- are read only for the current window.
-- +goose StatementBegin
CREATE TRIGGER ledger_sums_less AFTER DELETE ON ledger
BEGIN
    UPDATE windows SET
        held_ms    = held_ms    - CASE OLD.kind WHEN 'hold'   THEN OLD.held_ms
                                                WHEN 'settle' THEN -OLD.held_ms     ELSE 0 END,
        charged_ms = charged_ms - CASE OLD.kind WHEN 'settle' THEN OLD.charged_ms
                                                WHEN 'reset'  THEN -OLD.returned_ms ELSE 0 END,
        granted_ms = granted_ms - CASE OLD.kind WHEN 'grant'  THEN OLD.returned_ms  ELSE 0 END
    WHERE id = OLD.window_id;
END;
-- +goose StatementEnd
