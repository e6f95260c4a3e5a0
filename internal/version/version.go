// Package version knows the version, commit and date of this binary, and has the command that prints them.
package version

import (
	"cmp"
	"encoding/json"
	"fmt"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"spacehost/internal/usage"
)

// version, commit and date are set by the linker flags of a release build:
//
//	go build -ldflags "-X spacehost/internal/version.version=1.2.3 -X spacehost/internal/version.commit=... -X spacehost/internal/version.date=..."
//
// Without them, Current reads what the Go toolchain has recorded in the binary.
var version, commit, date string

// Build describes this binary.
type Build struct {
	Version string `json:"version"` // a release, or "dev"
	Commit  string `json:"commit"`  // "" if unknown; with "-dirty" if the working tree had changes
	Date    string `json:"date"`    // of the commit, RFC 3339; "" if unknown
	Go      string `json:"go"`
	SQLite  string `json:"sqlite,omitempty"` // "" if the binary has no database
}

// Current returns the Build of this process. sqlite is the version of SQLite in it.
func Current(sqlite string) Build {
	b := Build{Version: version, Commit: commit, Date: date, SQLite: sqlite}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	b.Go = info.GoVersion
	recorded := map[string]string{}
	for _, s := range info.Settings {
		recorded[s.Key] = s.Value
	}
	if module := info.Main.Version; module != "(devel)" { // `go install spacehost/cmd/spacehost@v1.2.3`
		b.Version = cmp.Or(b.Version, module)
	}
	b.Version = cmp.Or(b.Version, "dev")
	b.Date = cmp.Or(b.Date, recorded["vcs.time"])
	if b.Commit == "" && recorded["vcs.revision"] != "" {
		b.Commit = recorded["vcs.revision"]
		if recorded["vcs.modified"] == "true" {
			b.Commit += "-dirty"
		}
	}
	return b
}

// String is the one-line form.
func (b Build) String() string {
	var parts []string
	if b.Commit != "" {
		parts = append(parts, "commit "+b.Commit)
	}
	if b.Date != "" {
		parts = append(parts, b.Date)
	}
	parts = append(parts, b.Go)
	if b.SQLite != "" {
		parts = append(parts, "SQLite "+b.SQLite)
	}
	return fmt.Sprintf("%s (%s)", b.Version, strings.Join(parts, ", "))
}

// Command returns `spacehost version`.
func Command(b Build) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:     "version",
		Short:   "Print the version, commit and date of this binary, and its Go and SQLite versions",
		Long:    "Print the version of this binary, its commit and date, and the versions of Go and SQLite in it. No host needs to run.",
		Example: "  spacehost version\n  spacehost version --json | jq -r .commit",
		Args:    usage.Args(cobra.NoArgs),
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print the answer as JSON")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if !asJSON {
			_, err := fmt.Fprintf(c.OutOrStdout(), "spacehost %s\n", b)
			return err
		}
		text, err := json.Marshal(b)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(c.OutOrStdout(), "%s\n", text)
		return err
	}
	return c
}
