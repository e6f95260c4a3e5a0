package worker

import (
	"fmt"
	"slices"

	"spacehost/internal/lazyregexp"
	"spacehost/internal/printable"
)

var (
	noModule = lazyregexp.New(`^ModuleNotFoundError: No module named '([^'.]+)`)
	// preinstalled are the modules that the Hub installs unasked: hub-docs, spaces-dependencies.md, and ZeroGPU's torch.
	preinstalled = []string{"torch", "datasets", "requests"}
)

// missingModule returns the next step for an app that ended because a module is not installed, or "".
func missingModule(tail []string) string {
	if len(tail) == 0 {
		return ""
	}
	found := noModule.FindStringSubmatch(tail[len(tail)-1])
	switch {
	case found == nil:
		return ""
	case slices.Contains(preinstalled, found[1]):
		return fmt.Sprintf("The Hub preinstalls %s; spacehost does not. Add %s to requirements.txt, which works on the Hub too.", found[1], found[1])
	}
	return fmt.Sprintf("Add the package of the module %s to requirements.txt, or correct the import.", printable.Reason(found[1]))
}
