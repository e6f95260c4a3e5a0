package people

import (
	"fmt"
	"strings"
	"time"

	"spacehost/internal/identity"
	"spacehost/internal/lazyregexp"
)

// Person is a user that the operator knows by name. The account is "user:" + Name.
type Person struct {
	Name      string
	Tier      string
	Overrides Overrides
	CreatedAt time.Time
	CreatedBy string // the operator, or "configuration"
	Source    Source
}

// Source is the authority that manages a person.
type Source string

// The sources. A former person is no longer declared by the configuration, or was removed by command: they have no valid
// token, and their name may be used again.
const (
	Operator Source = "operator"
	Config   Source = "config"
	Former   Source = "former"
)

// ConfiguredPersonError refuses a change of a person that the configuration manages.
type ConfiguredPersonError struct {
	Name   string
	Source Source // Config or Former
}

func (e *ConfiguredPersonError) Error() string {
	if e.Source == Former {
		return fmt.Sprintf("user %s was removed; run `spacehost user add %s`, or add the user to the configuration of `spacehost serve`", e.Name, e.Name)
	}
	return fmt.Sprintf("user %s comes from the configuration of `spacehost serve`; change the entry under `people` there and run `spacehost reload`", e.Name)
}

// checkSource refuses changes of persons that the configuration manages: the next start would undo them.
func (p Person) checkSource() error {
	if p.Source == Operator {
		return nil
	}
	return &ConfiguredPersonError{p.Name, p.Source}
}

// Identity returns the person as a payer.
func (p Person) Identity() identity.Identity {
	return identity.Identity{Kind: identity.User, Name: p.Name, Tier: p.Tier}
}

// nameRule is also a CHECK in SQL (migrations/0002_people.sql). Its rule for the first character keeps ".." out of paths
// and "-x" out of command lines.
var nameRule = lazyregexp.New(`^[a-z0-9][a-z0-9._-]{0,63}$`)

// BadNameError refuses the name of a new person.
type BadNameError struct {
	Name  string
	Means string // its existing meaning as an account; "": it does not match nameRule
}

func (e *BadNameError) Error() string {
	if e.Means != "" {
		return fmt.Sprintf("%.70q cannot be a name: where accounts are named, as in `spacehost quota %s`, it means %s; choose another name", e.Name, e.Name, e.Means)
	}
	return fmt.Sprintf("%.70q cannot be a name: give 1 to 64 of a-z, 0-9, '.', '_' and '-', beginning with a letter or a digit", e.Name)
}

// DuplicatePersonError refuses a name that is already in use.
type DuplicatePersonError struct{ Name string }

func (e *DuplicatePersonError) Error() string {
	return fmt.Sprintf("user %s already exists: `spacehost user tier %s TIER` changes the tier, `spacehost token create %s` creates a token", e.Name, e.Name, e.Name)
}

// UnknownPersonError is returned for a name that no person has.
type UnknownPersonError struct {
	Name string
	Near []string // similar names, the most likely first
}

func (e *UnknownPersonError) Error() string {
	text := fmt.Sprintf("unknown user %.70q", e.Name)
	if len(e.Near) > 0 {
		text += "; did you mean " + strings.Join(e.Near, " or ") + "?"
	}
	return text + "; `spacehost user list` lists the users, `spacehost user add NAME` adds one"
}

// redact returns the part of a name, a label or an ID that an error may contain. A token that was entered by mistake must
// not appear in a log.
func redact(text string) string {
	if strings.Contains(strings.ToLower(text), tokenPrefix) {
		return tokenPrefix + "..."
	}
	return text
}
