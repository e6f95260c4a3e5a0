package worker

import (
	"fmt"
	"slices"

	"spacehost/internal/lazyregexp"
)

var (
	noModule = lazyregexp.New(`^ModuleNotFoundError: No module named '([^'.]+)`)
	// preinstalled are the modules that the Hub installs unasked: hub-docs, spaces-dependencies.md, and ZeroGPU's torch.
	preinstalled = []string{"torch", "datasets", "requests"}
)

// missingModule returns the next step for an app that ended because a module is not installed that the Hub has, or "".
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
	return "" // rule A206 names the next step
}
