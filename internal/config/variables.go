package config

import (
	"errors"
	"slices"
	"strings"

	"spacehost/internal/lazyregexp"
)

var variableRule = lazyregexp.New(`^[A-Za-z_][A-Za-z0-9_]*$`)

// ReservedVariables are the variables by which a Space learns its identity, and the spaces package its host. They follow from
// the configuration: with other values calls would be refused, or be paid by the wrong account.
var ReservedVariables = []string{
	"SYSTEM", "SPACE_ID", "SPACE_HOST", "SPACE_AUTHOR_NAME", "SPACE_REPO_NAME", "SPACE_CREATOR_USER_ID",
	"SPACES_ZERO_GPU", "SPACES_ZERO_DEVICE_API_URL", "ZEROGPU_V2", "CUDA_VISIBLE_DEVICES",
}

// CheckVariable checks the name of a Variable or a Secret. The caller puts the name in front of the error.
func CheckVariable(name string) error {
	switch {
	case !variableRule.MatchString(name):
		return errors.New("is not a valid variable name; use letters, digits and '_', and do not begin with a digit")
	case slices.Contains(ReservedVariables, name), strings.HasPrefix(name, "SPACEHOST_") && name != "SPACEHOST_TRACEBACK":
		return errors.New("is set by spacehost and cannot be changed; remove it")
	}
	return nil
}

// VariableNote returns a warning about a Variable that replaces one of this machine; "" without one.
func VariableNote(name string) string {
	if name == "PATH" {
		return "PATH replaces the whole search path of the Space: its environment's programs are found only if their folder is in it"
	}
	return ""
}
