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
	"":                         {},
	"cmd/spacehost":            {"*"},
	"server":                   {},
	"gradioapi":                {"queue", "internal/identity", "internal/people", "internal/token", "internal/web"},
	"internal/deviceapi":       {"internal/lease", "internal/identity", "internal/people", "internal/token", "quota", "internal/failpoint"},
	"internal/hubapi":          {"quota", "internal/identity", "internal/people"},
	"internal/console":         {"internal/lease", "gpu", "quota", "internal/identity", "internal/people", "internal/token", "internal/web", "internal/clock"},
	"worker":                   {"queue", "internal/space", "internal/identity"},
	"internal/lease":           {"gpu", "quota", "internal/identity"},
	"internal/lease/leasetest": {},
	"queue":                    {"internal/identity"},
	"quota":                    {"internal/identity", "internal/people", "internal/sqlrows"},
	"gpu/nvml":                 {"gpu"},
	"gpu/gputest":              {"gpu"},
	"gpu":                      {},
	"internal/space":           {"internal/nearest"},
	"internal/nearest":         {},
	"internal/sqlrows":         {},
	"internal/clock":           {},
	"internal/identity":        {},
	"internal/token":           {"internal/identity"},
	"internal/people":          {"internal/identity", "internal/nearest", "internal/sqlrows"},
	"internal/web":             {"internal/identity"},
	"internal/build":           {},
	"internal/check":           {"gpu"},
	"internal/failpoint":       {},
	"migrations":               {"internal/failpoint"},
	"examples/gotest":          {},
	"bench":                    {"internal/space", "internal/build"},
}

// keepers says who alone may import what from outside.
var keepers = map[string][]string{
	"github.com/labstack/echo/v4":     {"cmd/spacehost", "server", "gradioapi", "internal/deviceapi", "internal/hubapi", "internal/console"},
	"github.com/NVIDIA/go-nvml":       {"gpu/nvml"},
	"database/sql":                    {"cmd/spacehost", "migrations", "quota", "internal/lease", "internal/people", "internal/sqlrows"},
	"github.com/mattn/go-sqlite3":     {"migrations", "quota", "internal/lease"},
	"github.com/golang-jwt/jwt":       {"internal/token"},
	"github.com/vishvananda/netlink":  {"worker"},
	"github.com/prometheus":           {"internal/console"},
	"github.com/spf13/cobra":          {"cmd/spacehost"},
	"github.com/pressly/goose":        {"migrations"},
	"github.com/rogpeppe/go-internal": {},
	"github.com/chromedp/chromedp":    {"bench"},
	"spacehost/gpu/gputest":           {},
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
			if own && !slices.Contains(allowed, "*") && !slices.Contains(allowed, room(imported)) {
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
