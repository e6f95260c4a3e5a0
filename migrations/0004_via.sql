-- +goose Up

-- Delegation: quota of a visitor that one Space spends through another. via is the calling Space, in both entries of a
-- lease. Each window has the sums of such holds and charges, in two columns because a reset refunds only charges.
ALTER TABLE ledger ADD COLUMN via TEXT NOT NULL DEFAULT '';
ALTER TABLE windows ADD COLUMN via_held_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE windows ADD COLUMN via_charged_ms INTEGER NOT NULL DEFAULT 0;

DROP TRIGGER ledger_sums;

-- +goose StatementBegin
CREATE TRIGGER ledger_sums AFTER INSERT ON ledger
BEGIN
    UPDATE windows SET
        held_ms    = held_ms    + CASE NEW.kind WHEN 'hold'   THEN NEW.held_ms
                                                WHEN 'settle' THEN -NEW.held_ms     ELSE 0 END,
        charged_ms = charged_ms + CASE NEW.kind WHEN 'settle' THEN NEW.charged_ms
                                                WHEN 'reset'  THEN -NEW.returned_ms ELSE 0 END,
        granted_ms = granted_ms + CASE NEW.kind WHEN 'grant'  THEN NEW.returned_ms  ELSE 0 END,
        via_held_ms    = via_held_ms + CASE WHEN NEW.via = ''        THEN 0
                                            WHEN NEW.kind = 'hold'   THEN NEW.held_ms
                                            WHEN NEW.kind = 'settle' THEN -NEW.held_ms ELSE 0 END,
        via_charged_ms = CASE WHEN NEW.kind = 'reset' THEN 0
                              WHEN NEW.kind = 'settle' AND NEW.via <> '' THEN via_charged_ms + NEW.charged_ms
                              ELSE via_charged_ms END
    WHERE id = NEW.window_id;
END;
-- +goose StatementEnd

-- Owned by internal/people: Spaces that an operator has forbidden to spend quota through other Spaces, for one identity or
-- for all ('').
CREATE TABLE via_stops (
    space      TEXT    NOT NULL CHECK (space <> ''),
    identity   TEXT    NOT NULL DEFAULT '',
    stopped_at INTEGER NOT NULL,
    stopped_by TEXT    NOT NULL,
    PRIMARY KEY (space, identity)
) STRICT;
