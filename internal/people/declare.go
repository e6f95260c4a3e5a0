package people

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"fmt"
	"net/netip"
	"regexp"
	"strings"

	"spacehost/internal/identity"
)

// Declared is a person as the configuration of `spacehost serve` has them.
type Declared struct {
	Name, Tier string
	Tokens     []string // what HashToken returns
	Overrides  Overrides
}

// MaxTokens is how many tokens a person may have.
const MaxTokens = maxLive

const hashPrefix = "sha256:"

// HashToken is what a configuration says of a token instead of its text. It takes tokens of ours alone: a word that
// somebody made up could be found by its hash.
func HashToken(token string) (string, error) {
	if !tokenRule.MatchString(token) {
		return "", fmt.Errorf("this is no token of spacehost's, which are %s and 64 hexadecimal digits: `spacehost token hash --new` makes one", tokenPrefix)
	}
	sum := sha256.Sum256([]byte(token))
	return hashPrefix + hex.EncodeToString(sum[:]), nil
}

var tokenRule = regexp.MustCompile(`^` + tokenPrefix + `[0-9a-f]{64}$`)

// NewToken makes a token that nobody has yet. Whoever calls shows it, or it is lost.
func NewToken() (text, hash string) {
	text = newToken()
	hash, _ = HashToken(text) // it is one of ours
	return text, hash
}

// CheckName refuses a name that no person can have: *BadNameError.
func CheckName(name string) error {
	if !nameRule.MatchString(name) {
		return &BadNameError{Name: redact(name)}
	}
	if name == string(identity.Local) {
		return &BadNameError{Name: name, Means: "this machine's visitor"}
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return &BadNameError{Name: name, Means: "who calls from that address"}
	}
	return nil
}

// CheckHash refuses what HashToken does not write.
func CheckHash(text string) error {
	_, err := parseHash(text)
	return err
}

func parseHash(text string) (d digest, err error) {
	if strings.HasPrefix(text, tokenPrefix) {
		return d, fmt.Errorf("this is a token itself: whoever reads the file could call with it. Write what `spacehost token hash` prints for it")
	}
	digits, ok := strings.CutPrefix(text, hashPrefix)
	raw, bad := hex.DecodeString(digits)
	if !ok || bad != nil || len(raw) != len(d) {
		return d, fmt.Errorf("this is not sha256: and 64 hexadecimal digits, as `spacehost token hash` prints them")
	}
	return digest(raw), nil
}

// ClashError says that the configuration names somebody, or a token, over whom the operator has the say.
type ClashError struct {
	Name  string // in the configuration
	Token bool   // it is a token of theirs
	Owner string // whom that token belongs to
}

func (e *ClashError) Error() string {
	if e.Token {
		return fmt.Sprintf("a token of %s is one that `spacehost token create` made for %s: take another (spacehost token hash --new)", e.Name, e.Owner)
	}
	return fmt.Sprintf("%s is a person whom `spacehost user add` has added: take them out of the configuration and keep their tokens, or give the one in the configuration another name", e.Name)
}

// Declare makes the people of a configuration those whom the configuration has named, in one transaction: others
// whom it named before lose their tokens, as do tokens that it names no more. People of the operator's are not
// touched. Errors: *BadNameError, *ClashError, or a token that CheckHash refuses; then all is as before.
func (p *Store) Declare(ctx context.Context, people []Declared) error {
	return p.change(ctx, "take people from the configuration", func(tx *sql.Tx) error {
		now := p.now().UnixMilli()
		if _, err := tx.ExecContext(ctx, `UPDATE people SET source = 'former' WHERE source = 'config'`); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `UPDATE tokens SET revoked_at = ? WHERE revoked_at IS NULL
			AND person IN (SELECT name FROM people WHERE source = 'former')`, now); err != nil {
			return err
		}
		for _, one := range people {
			if err := declare(ctx, tx, one, now); err != nil {
				return err
			}
		}
		return nil
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

// declareToken makes a token good, also one that an earlier configuration had: whoever writes it there again means it.
func declareToken(ctx context.Context, tx *sql.Tx, person, text string, now int64) error {
	hash, err := parseHash(text)
	if err != nil {
		return err
	}
	changed, err := changes(tx.ExecContext(ctx, `INSERT INTO tokens (id, person, hash, label, created_at) VALUES (?, ?, ?, 'configuration', ?)
		ON CONFLICT (hash) DO UPDATE SET person = excluded.person, revoked_at = NULL
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
