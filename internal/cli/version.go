package cli

import (
	"cmp"
	"encoding/json"
	"fmt"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"spacehost/migrations"
)

// version, commit and date are set by the linker flags of a release build:
//
//	go build -ldflags "-X spacehost/internal/cli.version=1.2.3 -X spacehost/internal/cli.commit=... -X spacehost/internal/cli.date=..."
//
// Without them, buildVersion reads what the Go toolchain has recorded in the binary.
var version, commit, date string

// build describes this binary.
type build struct {
	Version string `json:"version"` // a release, or "dev"
	Commit  string `json:"commit"`  // "" if unknown; with "-dirty" if the working tree had changes
	Date    string `json:"date"`    // of the commit, RFC 3339; "" if unknown
	Go      string `json:"go"`
	SQLite  string `json:"sqlite"`
}

func buildVersion() build {
	b := build{Version: version, Commit: commit, Date: date, SQLite: migrations.SQLiteVersion()}
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
func (b build) String() string {
	var parts []string
	if b.Commit != "" {
		parts = append(parts, "commit "+b.Commit)
	}
	if b.Date != "" {
		parts = append(parts, b.Date)
	}
	parts = append(parts, b.Go, "SQLite "+b.SQLite)
	return fmt.Sprintf("%s (%s)", b.Version, strings.Join(parts, ", "))
}

func newVersion() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:     "version",
		Short:   "Print the version, commit and date of this binary, and its Go and SQLite versions",
		Long:    "Print the version of this binary, its commit and date, and the versions of Go and SQLite in it. No host needs to run.",
		Example: "  spacehost version\n  spacehost version --json | jq -r .commit",
		Args:    usage(cobra.NoArgs),
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print the answer as JSON")
	c.RunE = func(c *cobra.Command, _ []string) error {
		b := buildVersion()
		if !asJSON {
			return printf(c, "spacehost %s", b)
		}
		text, err := json.Marshal(b)
		if err != nil {
			return err
		}
		return printf(c, "%s", text)
	}
	return c
}
