package people

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"

	"spacehost/internal/identity"
	"spacehost/internal/lazyregexp"
)

// Declared is a person as declared in the configuration of `spacehost serve`.
type Declared struct {
	Name, Tier string
	Tokens     []string // as returned by HashToken
	Overrides  Overrides
	Admin      bool   // may read and change everything at the console
	Group      string // for sums of usage, and for the rights of a group; "": none
}

// MaxTokens bounds the tokens of a person.
const MaxTokens = maxTokens

const hashPrefix = "sha256:"

// HashToken returns the hash that a configuration contains instead of a token's text. It accepts only tokens of
// spacehost: a made-up word could be guessed from its hash.
func HashToken(token string) (string, error) {
	if !tokenRule.MatchString(token) {
		return "", fmt.Errorf("this is not a spacehost token, which is %s and 64 hexadecimal digits; create one with `spacehost token hash --new`", tokenPrefix)
	}
	sum := sha256.Sum256([]byte(token))
	return hashPrefix + hex.EncodeToString(sum[:]), nil
}

var tokenRule = lazyregexp.New(`^` + tokenPrefix + `[0-9a-f]{64}$`)

// NewToken creates a token that belongs to no person yet. The caller must show its text, which is not stored.
func NewToken() (text, hash string) {
	text = newToken()
	hash, _ = HashToken(text) // never fails for a new token
	return text, hash
}

// CheckName returns a *BadNameError for a name that a person cannot have.
func CheckName(name string) error {
	if !nameRule.MatchString(name) {
		return &BadNameError{Name: redact(name)}
	}
	if name == string(identity.Local) {
		return &BadNameError{Name: name, Means: "this machine's visitor"}
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return &BadNameError{Name: name, Means: "the visitor at that address"}
	}
	return nil
}

// CheckHash returns an error for text that HashToken cannot have returned.
func CheckHash(text string) error {
	_, err := parseHash(text)
	return err
}

func parseHash(text string) (d digest, err error) {
	if strings.HasPrefix(text, tokenPrefix) {
		return d, fmt.Errorf("this is a token itself, which any reader of the file could use; write the output of `spacehost token hash` instead")
	}
	digits, ok := strings.CutPrefix(text, hashPrefix)
	raw, bad := hex.DecodeString(digits)
	if !ok || bad != nil || len(raw) != len(d) {
		return d, fmt.Errorf("this is not sha256: and 64 hexadecimal digits; write the output of `spacehost token hash`")
	}
	return digest(raw), nil
}

// ClashError refuses a configuration that declares a person or a token that the operator has created.
type ClashError struct {
	Name  string // in the configuration
	Token bool   // the clash is about a token of Name
	Owner string // the person that the token belongs to
}

func (e *ClashError) Error() string {
	if e.Token {
		return fmt.Sprintf("a token of %s was created for %s with `spacehost token create`; use another one (spacehost token hash --new)", e.Name, e.Owner)
	}
	return fmt.Sprintf("user %s was created with `spacehost user add`; remove %s from the configuration to keep their tokens, or rename the user in the configuration", e.Name, e.Name)
}

// Declare replaces the persons of source config by the declared ones in one transaction. Persons and tokens that are no
// longer declared lose their validity. Tokens that a person has created (CreateOwnToken) last as long as the person is declared. The operator's persons are not changed. Errors: *BadNameError, *ClashError, or the
// error of CheckHash for a token; then nothing is changed.
func (s *Store) Declare(ctx context.Context, people []Declared) error {
	return s.changeEnding(ctx, "apply people of the configuration", func(tx *sql.Tx) error {
		now := s.now().UnixMilli()
		if _, err := tx.ExecContext(ctx, `UPDATE people SET source = 'former' WHERE source = 'config'`); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `UPDATE tokens SET revoked_at = ? WHERE revoked_at IS NULL AND declared = 1
			AND person IN (SELECT name FROM people WHERE source = 'former')`, now); err != nil {
			return err
		}
		for _, one := range people {
			if err := declare(ctx, tx, one, now); err != nil {
				return err
			}
		}
		_, err := tx.ExecContext(ctx, `UPDATE tokens SET revoked_at = ? WHERE revoked_at IS NULL
			AND person IN (SELECT name FROM people WHERE source = 'former')`, now) // those that people have created
		return err
	})
}

func declare(ctx context.Context, tx *sql.Tx, one Declared, now int64) error {
	if err := CheckName(one.Name); err != nil {
		return err
	}
	changed, err := changes(tx.ExecContext(ctx, `INSERT INTO people (name, tier, created_at, created_by, source) VALUES (?, ?, ?, 'configuration', 'config')
		ON CONFLICT (name) DO UPDATE SET tier = excluded.tier, created_by = excluded.created_by, source = 'config'
		WHERE source = 'former'`, one.Name, one.Tier, now))
	if err != nil {
		return err
	}
	if changed == 0 {
		return &ClashError{Name: one.Name}
	}
	if err := write(ctx, tx, Person{Name: one.Name, Tier: one.Tier, Overrides: one.Overrides}); err != nil {
		return err
	}
	for _, text := range one.Tokens {
		if err := declareToken(ctx, tx, one.Name, text, now); err != nil {
			return err
		}
	}
	return nil
}

// declareToken makes a token valid. A token of an earlier configuration becomes valid again, unless the operator has revoked it.
func declareToken(ctx context.Context, tx *sql.Tx, person, text string, now int64) error {
	hash, err := parseHash(text)
	if err != nil {
		return err
	}
	changed, err := changes(tx.ExecContext(ctx, `INSERT INTO tokens (id, person, hash, label, created_at, declared) VALUES (?, ?, ?, 'configuration', ?, 1)
		ON CONFLICT (hash) DO UPDATE SET person = excluded.person, declared = 1, scope = 'all', spaces = NULL, expires_at = NULL,
			revoked_at = iif(revoked_by_command, revoked_at, NULL)
		WHERE person IN (SELECT name FROM people WHERE source <> 'operator')`, newTokenID(), person, hash[:], now))
	if err != nil || changed > 0 {
		return err
	}
	clash := &ClashError{Name: person, Token: true}
	if err := tx.QueryRowContext(ctx, `SELECT person FROM tokens WHERE hash = ?`, hash[:]).Scan(&clash.Owner); err != nil {
		return err
	}
	return clash
}

func changes(result sql.Result, err error) (int64, error) {
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}
