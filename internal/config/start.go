package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// StartText returns the keys that a start of the Space depends on, with their values: those whose change needs a new start. Two
// settings with the same text start the Space in the same way. It contains Secrets: never print it.
func (s SpaceSettings) StartText() string {
	var b strings.Builder
	for _, f := range spaceFields {
		if f.effect != AtOnce {
			fmt.Fprintf(&b, "%s=%q\n", f.key, f.text(s))
		}
	}
	for _, values := range []map[string]string{s.Variables, s.Secrets} {
		b.WriteString("\n")
		for _, name := range slices.Sorted(maps.Keys(values)) {
			fmt.Fprintf(&b, "%s=%q\n", name, values[name])
		}
	}
	return b.String()
}
