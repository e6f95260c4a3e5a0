package people

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Scope is what a token may be used for. Each scope includes the ones before it in Scopes.
type Scope string

// The scopes.
const (
	ScopeCall Scope = "call" // call Spaces, open their pages, and sign a browser in at them
	ScopeRead Scope = "read" // also read at the console what the person may read
	ScopeAll  Scope = "all"  // also change at the console what the person may change, such as tokens
)

// Scopes lists the scopes, from the least to the most.
func Scopes() []Scope { return []Scope{ScopeCall, ScopeRead, ScopeAll} }

// Rights are what a token allows. They never change.
type Rights struct {
	Scope     Scope
	Spaces    []string  // names of the Spaces at which the token is valid; empty: at all
	ExpiresAt time.Time // zero: never
}

// SpaceLimit are the names of the Spaces to which a token is limited. Empty is no limit.
type SpaceLimit []string

// Allows reports whether the limit includes a Space.
func (l SpaceLimit) Allows(space string) bool { return len(l) == 0 || slices.Contains(l, space) }

// FullRights returns the Rights of a token without a limit.
func FullRights() Rights { return Rights{Scope: ScopeAll} }

// Allow is the one rule of tokens: it compares what a token allows with what is wanted, by a request or for a new token. A token
// creates none with a larger scope, more Spaces or a later expiry than its own. Errors: *RightsError.
func (r Rights) Allow(wanted Rights) error {
	if slices.Index(Scopes(), r.Scope) < slices.Index(Scopes(), wanted.Scope) {
		return &RightsError{fmt.Sprintf("this token has scope %s, and scope %s is required; use a token with scope %[2]s", r.Scope, wanted.Scope)}
	}
	for _, space := range wanted.Spaces {
		if !SpaceLimit(r.Spaces).Allows(space) {
			return &RightsError{fmt.Sprintf("this token is not valid at the Space %.70s, only at: %s; use a token for that Space", space, strings.Join(r.Spaces, ", "))}
		}
	}
	if len(r.Spaces) > 0 && len(wanted.Spaces) == 0 {
		return &RightsError{fmt.Sprintf("this token is valid only at: %s; limit the new token to these Spaces", strings.Join(r.Spaces, ", "))}
	}
	if !r.ExpiresAt.IsZero() && (wanted.ExpiresAt.IsZero() || wanted.ExpiresAt.After(r.ExpiresAt)) {
		return &RightsError{fmt.Sprintf("this token expires at %s; choose an expiry that is not later", r.ExpiresAt.Format(time.RFC3339))}
	}
	return nil
}

// use returns what a request needs: a scope, and the Space that receives it ("": the console, where a limit of Spaces does not
// matter). The expiry is not compared, because a lookup does not find expired tokens.
func (r Rights) use(scope Scope, space string) Rights {
	wanted := Rights{Scope: scope, Spaces: r.Spaces, ExpiresAt: r.ExpiresAt}
	if space != "" {
		wanted.Spaces = []string{space}
	}
	return wanted
}

// isExpired reports whether the token has ended by now.
func (r Rights) isExpired(now time.Time) bool {
	return !r.ExpiresAt.IsZero() && !now.Before(r.ExpiresAt)
}

// maxSpaces bounds the Spaces of one token.
const maxSpaces = 100

// maxTokenLife bounds the life of a token with an expiry.
const maxTokenLife = 10 * 365 * 24 * time.Hour

// check refuses Rights that no token may have. Errors: *BadRightsError.
func (r Rights) check(now time.Time) error {
	switch {
	case !slices.Contains(Scopes(), r.Scope):
		return &BadRightsError{fmt.Sprintf("unknown scope %.40q; give call, read or all", redact(string(r.Scope)))}
	case r.Scope == ScopeAll && len(r.Spaces) > 0:
		return &BadRightsError{"a token that is limited to Spaces cannot have scope all; give call or read"}
	case len(r.Spaces) > maxSpaces:
		return &BadRightsError{fmt.Sprintf("%d Spaces are too many for one token; give at most %d, or none for all Spaces", len(r.Spaces), maxSpaces)}
	case !r.ExpiresAt.IsZero() && (r.ExpiresAt.Before(now.Add(time.Second)) || r.ExpiresAt.After(now.Add(maxTokenLife))):
		return &BadRightsError{fmt.Sprintf("the expiry must be from 1s to %dd ahead; %s is not", maxTokenLife/(24*time.Hour), r.ExpiresAt.Format(time.RFC3339))}
	}
	return nil
}

// RightsError refuses a request, or a new token, for which the token of the request has too few Rights. Its text is for the person.
type RightsError struct{ text string }

func (e *RightsError) Error() string { return e.text }

// BadRightsError refuses Rights that no token may have.
type BadRightsError struct{ text string }

func (e *BadRightsError) Error() string { return e.text }

// spaceList is a list of names as stored in SQL; NULL is the empty list.
type spaceList struct{ into *[]string }

// Scan implements sql.Scanner.
func (l spaceList) Scan(value any) error {
	switch text := value.(type) {
	case nil:
		*l.into = nil
		return nil
	case string:
		return json.Unmarshal([]byte(text), l.into)
	}
	return fmt.Errorf("a list of Spaces is %T, want text", value)
}

// columns returns the Rights as stored in SQL: scope, spaces, expires_at.
func (r Rights) columns() (scope Scope, spaces *string, expiresAt *int64) {
	if len(r.Spaces) > 0 {
		text, _ := json.Marshal(r.Spaces) // strings have no error
		list := string(text)
		spaces = &list
	}
	if !r.ExpiresAt.IsZero() {
		ms := r.ExpiresAt.UnixMilli()
		expiresAt = &ms
	}
	return r.Scope, spaces, expiresAt
}
