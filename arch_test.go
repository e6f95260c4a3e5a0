// Package spacehost holds no code: its test keeps the rooms apart.
package spacehost

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// rooms says which of our packages each package may import. ARCHITECTURE.md says why. A new arrow is a change
// of this table, so that a review sees it.
var rooms = map[string][]string{
	"":                               {},
	"cmd/spacehost":                  {"internal/checkcli", "internal/cli", "internal/sandbox"},
	"internal/cli":                   {"gpu", "gpu/nvml", "internal/build", "internal/check", "internal/checkcli", "internal/checkrun", "internal/doctor", "internal/clock", "internal/config", "internal/control", "internal/fetchspace", "internal/host", "internal/lease", "internal/people", "internal/printable", "internal/space", "internal/spacelog", "internal/usage", "internal/version", "internal/views", "migrations"},
	"internal/config":                {"gpu", "gpu/nvml", "internal/egress", "internal/lazyregexp", "internal/nearest", "internal/people", "internal/space", "internal/web", "quota"},
	"internal/host":                  {"gpu", "gpu/nvml", "gradioapi", "internal/build", "internal/check", "internal/clock", "internal/config", "internal/console", "internal/control", "internal/deviceapi", "internal/egress", "internal/feature", "internal/hubapi", "internal/identity", "internal/lazyregexp", "internal/lease", "internal/metrics", "internal/payer", "internal/people", "internal/printable", "internal/proctree", "internal/removal", "internal/sandbox", "internal/space", "internal/spacelog", "internal/token", "internal/views", "internal/web", "migrations", "queue", "quota", "server", "worker"},
	"internal/payer":                 {"internal/identity", "internal/people", "internal/token", "internal/web", "queue", "quota", "server"},
	"server":                         {},
	"gradioapi":                      {"internal/identity", "internal/people", "internal/token", "internal/web", "queue"},
	"internal/deviceapi":             {"internal/failpoint", "internal/identity", "internal/lease", "internal/people", "internal/token", "quota"},
	"internal/hubapi":                {"internal/identity", "internal/people", "quota"},
	"internal/console":               {"internal/identity", "internal/people", "internal/views", "internal/web"},
	"worker":                         {"internal/identity", "internal/lazyregexp", "internal/lazyregexp", "internal/printable", "internal/proctree", "internal/sandbox", "internal/space", "queue"},
	"internal/lease":                 {"gpu", "internal/identity", "quota"},
	"internal/lease/leasetest":       {},
	"queue":                          {"internal/identity"},
	"quota":                          {"internal/people", "internal/sqlrows"},
	"gpu/nvml":                       {"gpu", "internal/lazyregexp"},
	"gpu/gputest":                    {"gpu"},
	"gpu":                            {},
	"internal/space":                 {"internal/lazyregexp", "internal/nearest"},
	"internal/spacelog":              {"internal/printable"},
	"internal/fetchspace":            {"internal/lazyregexp"},
	"internal/clock":                 {},
	"internal/identity":              {},
	"internal/token":                 {"internal/identity"},
	"internal/people":                {"internal/identity", "internal/lazyregexp", "internal/nearest", "internal/sqlrows"},
	"internal/web":                   {"internal/identity", "internal/lazyregexp"},
	"internal/build":                 {"internal/lazyregexp", "internal/removal"},
	"internal/build/buildtest":       {},
	"internal/check":                 {"gpu", "internal/lazyregexp", "internal/nearest", "internal/printable", "internal/space", "quota"},
	"internal/checkcli":              {"gpu", "internal/check", "internal/fetchspace", "internal/lazyregexp", "internal/printable", "internal/space", "internal/usage", "internal/version", "quota"},
	"internal/usage":                 {},
	"internal/version":               {"internal/usage"},
	"internal/checkrun":              {"gpu", "internal/build", "internal/check", "internal/config", "internal/host", "internal/printable", "worker"},
	"internal/doctor":                {"gpu", "internal/sandbox"},
	"internal/failpoint":             {},
	"migrations":                     {"internal/failpoint"},
	"examples/gotest":                {},
	"bench":                          {"internal/build", "internal/sandbox", "internal/space"},
	"internal/measures":              {},
	"internal/packaging":             {},
	"internal/measures/measure":      {"internal/measures"},
	"internal/proctree":              {"internal/feature"},
	"internal/proctree/proctreetest": {},
	"internal/control":               {"gpu", "internal/clock", "internal/identity", "internal/lease", "internal/people", "internal/views", "quota"},
	"internal/metrics":               {"gpu", "internal/egress", "internal/lease", "internal/views"},
	"internal/views":                 {"internal/identity", "internal/lease", "internal/people", "quota"},
	"internal/cli/clidoc":            {"internal/check", "internal/cli"},
	"internal/cli/clidoc/gen":        {"internal/cli/clidoc"},
	"internal/egress":                {},
	"internal/lazyregexp":            {},
	"internal/nearest":               {},
	"internal/sqlrows":               {},
	"internal/feature":               {},
	"internal/feature/featuretest":   {},
	"internal/sandbox":               {"internal/failpoint", "internal/feature", "internal/removal"},
	"internal/printable":             {},
	"internal/removal":               {},
	"internal/python":                {},
}

// keepers says who alone may import what from outside.
var keepers = map[string][]string{
	"github.com/labstack/echo/v4":            {"internal/host", "server", "gradioapi", "internal/deviceapi", "internal/hubapi", "internal/console", "internal/control", "internal/metrics", "internal/views"},
	"github.com/NVIDIA/go-nvml":              {"gpu/nvml"},
	"database/sql":                           {"internal/host", "migrations", "quota", "internal/lease", "internal/people", "internal/space", "internal/sqlrows"},
	"github.com/mattn/go-sqlite3":            {"migrations", "quota", "internal/lease"},
	"github.com/golang-jwt/jwt":              {"internal/token"},
	"github.com/vishvananda/netlink":         {"internal/proctree", "internal/sandbox"},
	"golang.org/x/net":                       {"internal/egress", "internal/sandbox"},
	"github.com/prometheus":                  {"internal/metrics"},
	"github.com/spf13/cobra":                 {"internal/checkcli", "internal/cli", "internal/cli/clidoc", "internal/usage", "internal/version"},
	"github.com/pressly/goose":               {"migrations"},
	"github.com/coreos/go-systemd":           {"internal/host"},
	"github.com/joho/godotenv":               {"internal/config"},
	"gopkg.in/natefinch/lumberjack.v2":       {"internal/spacelog"},
	"github.com/rogpeppe/go-internal":        {},
	"github.com/chromedp/chromedp":           {"bench"},
	"spacehost/gpu/gputest":                  {},
	"spacehost/internal/build/buildtest":     {},
	"spacehost/internal/feature/featuretest": {},
}

// pkg is what `go list -json` tells of a package.
type pkg struct {
	ImportPath, Doc, Dir string
	Imports, GoFiles     []string
}

func packages(t *testing.T) (all []pkg) {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Doc,Dir,Imports,GoFiles", "./...").Output()
	if err != nil {
		t.Fatal(err)
	}
	for decoder := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		switch err := decoder.Decode(&p); {
		case errors.Is(err, io.EOF):
			return all
		case err != nil:
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

func room(path string) string {
	return strings.TrimPrefix(strings.TrimPrefix(path, "spacehost"), "/")
}

func TestRoomsKnowOnlyWhomTheyMay(t *testing.T) {
	for _, p := range packages(t) {
		allowed, known := rooms[room(p.ImportPath)]
		if !known {
			t.Errorf("%s is a room that the table does not have", p.ImportPath)
		}
		for _, imported := range p.Imports {
			own := strings.HasPrefix(imported, "spacehost/")
			if own && !slices.Contains(allowed, room(imported)) {
				t.Errorf("%s must not know %s", p.ImportPath, imported)
			}
		}
	}
}

func TestLibrariesHaveOneDoor(t *testing.T) {
	for _, p := range packages(t) {
		for _, imported := range p.Imports {
			for library, doors := range keepers {
				if (imported == library || strings.HasPrefix(imported, library+"/")) && !slices.Contains(doors, room(p.ImportPath)) {
					t.Errorf("%s imports %s, which only %v may", p.ImportPath, imported, doors)
				}
			}
		}
	}
}

func TestEachPackageSaysWhatItIsFor(t *testing.T) {
	for _, p := range packages(t) {
		if len(p.GoFiles) > 0 && len(p.Doc) < 20 {
			t.Errorf("%s has no doc comment", p.ImportPath)
		}
	}
}
