package people

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	"spacehost/internal/identity"
)

// Person is somebody whom the operator knows by name. Name says who pays: the account is "user:" + Name.
type Person struct {
	Name      string
	Tier      string
	Overrides Overrides
	CreatedAt time.Time
	CreatedBy string // who added them
	Source    Source
}

// Source is who has the say over a person.
type Source string

// The sources. A former person was dropped by the configuration: they have no good token, and their name is free.
const (
	Operator Source = "operator"
	Config   Source = "config"
	Former   Source = "former"
)

// ConfiguredPersonError refuses a change of somebody over whom the configuration has the say.
type ConfiguredPersonError struct {
	Name   string
	Source Source // Config or Former
}

func (e *ConfiguredPersonError) Error() string {
	if e.Source == Former {
		return fmt.Sprintf("%s was taken out of the configuration of `spacehost serve`: put them back there, or make them the operator's with `spacehost user add %s`", e.Name, e.Name)
	}
	return fmt.Sprintf("%s comes from the configuration of `spacehost serve`: change them under `people` there, and start the host again", e.Name)
}

// byOperator refuses changes that the configuration would undo at the next start.
func (p Person) byOperator() error {
	if p.Source == Operator {
		return nil
	}
	return &ConfiguredPersonError{p.Name, p.Source}
}

// Identity is the person as payer.
func (p Person) Identity() identity.Identity {
	return identity.Identity{Kind: identity.User, Name: p.Name, Tier: p.Tier}
}

// nameRule is in SQL too (migrations/0002_people.sql). The first letter keeps ".." out of paths and "-x" out of
// command lines.
var nameRule = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)

// BadNameError refuses the name of a new person.
type BadNameError struct {
	Name  string
	Means string // what it means already, where accounts are named; "": it is not written as a name is
}

func (e *BadNameError) Error() string {
	if e.Means != "" {
		return fmt.Sprintf("%.70q cannot be a name: where accounts are named, as in `spacehost quota %s`, it means %s; give another", e.Name, e.Name, e.Means)
	}
	return fmt.Sprintf("%.70q cannot be a name: give 1 to 64 of a-z, 0-9, '.', '_' and '-', beginning with a letter or a digit", e.Name)
}

// DuplicatePersonError says that somebody has that name already.
type DuplicatePersonError struct{ Name string }

func (e *DuplicatePersonError) Error() string {
	return fmt.Sprintf("%s is here already: `spacehost user tier %s TIER` changes the tier, `spacehost token create %s` makes a token", e.Name, e.Name, e.Name)
}

// UnknownPersonError says that nobody has that name.
type UnknownPersonError struct {
	Name string
	Near []string // names like it, the likeliest first
}

func (e *UnknownPersonError) Error() string {
	text := fmt.Sprintf("there is nobody called %.70q", e.Name)
	if len(e.Near) > 0 {
		text += "; did you mean " + strings.Join(e.Near, " or ") + "?"
	}
	return text + "; `spacehost user list` shows everybody, `spacehost user add NAME` adds somebody"
}

// mask is what an error may say of a name, a label or an ID: who mistakes a token for one must not find it in a log.
func redact(text string) string {
	if strings.Contains(strings.ToLower(text), tokenPrefix) {
		return tokenPrefix + "..."
	}
	return text
}
