package slurm

import (
	"fmt"
	"strings"
)

// reserved are the options of sbatch that Script sets, and those with which a job would be no single pilot job. sbatch accepts the
// beginning of an option as well.
var reserved = []string{
	"job-name", "partition", "account", "gres", "nodes", "ntasks", "time", "signal", "no-requeue", "requeue", "output", "error", "input", "open-mode",
	"array", "wrap", "parsable", "wait", "test-only", "export", "export-file", "chdir", "hold", "quiet", "help", "usage", "version",
}

// CheckOption refuses an extra option of sbatch that is not --NAME or --NAME=VALUE, or that Script sets itself.
func CheckOption(option string) error {
	name, isLong := strings.CutPrefix(option, "--")
	name, _, _ = strings.Cut(name, "=")
	if !isLong || name == "" || strings.ContainsAny(name, " ") {
		return fmt.Errorf("%.60q is not an option of sbatch in the form --name or --name=value", option)
	}
	if err := CheckText(option); err != nil {
		return err
	}
	for _, own := range reserved {
		if strings.HasPrefix(own, name) {
			return fmt.Errorf("spacehost sets the option --%s of sbatch itself; remove %.60q", own, option)
		}
	}
	return nil
}

// CheckText refuses a value that cannot be part of a line of #SBATCH.
func CheckText(text string) error {
	if text == "" || len(text) > 200 || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' || strings.ContainsRune("\"'`\\", r) }) {
		return fmt.Errorf("%.60q must have up to 200 printable ASCII characters, and no quotes or backslashes", text)
	}
	return nil
}
