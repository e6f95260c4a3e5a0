package space

import (
	"fmt"
	"strings"

	"spacehost/internal/lazyregexp"
)

// Preload is one line of preload_from_hub: what the build downloads into the Hub's cache.
type Preload struct {
	Model  string   // of the Hub: owner/name
	Files  []string // empty: all
	Commit string   // empty: the newest of main
}

var (
	repoID   = lazyregexp.New(`^[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)?$`)
	commitID = lazyregexp.New(`^[0-9a-f]{40}$`)
)

// ParsePreload reads `repo`, `repo file,file` or `repo file,file commit` (spaces-config-reference.md).
func ParsePreload(line string) (p Preload, err error) {
	words := strings.Fields(line)
	if len(words) == 0 || len(words) > 3 {
		return p, fmt.Errorf("preload_from_hub %q has %d parts, not one to three", line, len(words))
	}
	if p.Model = words[0]; !repoID.MatchString(p.Model) {
		return p, fmt.Errorf("preload_from_hub: %q is not the name of a repository", p.Model)
	}
	if len(words) > 1 {
		for _, file := range strings.Split(words[1], ",") {
			if file == "" {
				return p, fmt.Errorf("preload_from_hub %q has an empty file name", line)
			}
			p.Files = append(p.Files, file)
		}
	}
	if len(words) > 2 {
		if p.Commit = words[2]; !commitID.MatchString(p.Commit) {
			return p, fmt.Errorf("preload_from_hub: %q is not a commit of 40 hexadecimal digits", p.Commit)
		}
	}
	return p, nil
}
