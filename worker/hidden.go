package worker

import (
	"fmt"
	"os"

	"spacehost/internal/lazyregexp"
	"spacehost/internal/printable"
)

// pathError matches the last line of an app that ended because it could not open a file (OSError.__str__).
var pathError = lazyregexp.New(`^(?:FileNotFoundError|PermissionError|NotADirectoryError): \[Errno \d+\] [^:]+: '(/[^']+)'$`)

// hiddenPath returns the next step for an app that ended because its level of isolation hides a path of this machine, or
// "". exists reports whether the path exists outside.
func hiddenPath(tail []string, exists func(path string) bool) string {
	if len(tail) == 0 {
		return ""
	}
	found := pathError.FindStringSubmatch(tail[len(tail)-1])
	if found == nil || !exists(found[1]) {
		return ""
	}
	path := printable.Reason(found[1])
	return fmt.Sprintf("The level of isolation hides %s from the Space, as the Hub would. Copy it into the Space, or let the Space see it: --mount %s with `run`, `mounts` with `serve`.", path, path)
}

// existsOutside reports whether the host sees a path.
func existsOutside(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// hint returns Exit.Hint.
func (p *Process) hint() string {
	if p.config.Sandbox == nil && p.config.Files == nil {
		return ""
	}
	return hiddenPath(p.Tail(), existsOutside)
}

// explainExit returns the next step for a process that has exited by itself.
func explainExit(p Start) string {
	if step := missingModule(p.Tail()); step != "" {
		return step
	}
	if step := p.Exit().Hint; step != "" {
		return step
	}
	return nextStep(p)
}
