// Package feature reports which features of the machine this process must ignore, so that a test can use a fallback on
// a machine that has the feature.
package feature

import (
	"os"
	"slices"
	"strings"
)

// Variable is the environment variable that lists the features to ignore, separated by commas.
const Variable = "SPACEHOST_DISABLE"

// SimulatedNode is the environment variable with the path of a harmless device node that stands for those of simulated GPUs,
// so that a test can watch a Space open it.
const SimulatedNode = "SPACEHOST_SIMULATED_NODE"

// Features that Variable may list.
const (
	Cgroup   = "cgroup"   // cgroups of version 2
	Userns   = "userns"   // user namespaces
	Landlock = "landlock" // Landlock rulesets
	Seccomp  = "seccomp"  // seccomp filters
)

// Disabled reports whether Variable lists the feature.
func Disabled(name string) bool {
	return slices.Contains(strings.Split(os.Getenv(Variable), ","), name)
}
