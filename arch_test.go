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

// rooms lists which of our packages each package may import. ARCHITECTURE.md gives the reasons. A new arrow is a change
// of this table, so that a review sees it.
var rooms = map[string][]string{
	"":                               {},
	"cmd/spacehost":                  {"internal/checkcli", "internal/cli", "internal/sandbox"},
	"internal/agent":                 {"internal/guard", "internal/lease", "internal/outbox", "internal/proctree", "internal/sandbox", "quota", "worker"},
	"internal/guard":                 {"internal/lease", "quota"},
	"internal/machine":               {"gpu", "gpu/nvml", "internal/guard", "internal/lease", "internal/link", "internal/printable", "internal/proctree"},
	"internal/link":                  {"internal/outbox", "internal/placement", "internal/stack"},
	"internal/link/linktest":         {"internal/link"},
	"internal/cli":                   {"gpu", "gpu/nvml", "internal/agent", "internal/audit", "internal/build", "internal/check", "internal/checkcli", "internal/checkrun", "internal/clock", "internal/config", "internal/control", "internal/doctor", "internal/fetchspace", "internal/host", "internal/lazyregexp", "internal/lease", "internal/machine", "internal/nodeagent", "internal/nodes", "internal/nodessh", "internal/notify", "internal/people", "internal/printable", "internal/slurm", "internal/space", "internal/spacelog", "internal/usage", "internal/version", "internal/views", "migrations"},
	"internal/config":                {"gpu", "gpu/nvml", "internal/egress", "internal/lazyregexp", "internal/nearest", "internal/notify", "internal/people", "internal/placement", "internal/slurm", "internal/space", "internal/web", "quota"},
	"internal/host":                  {"gpu", "gpu/nvml", "gradioapi", "internal/agent", "internal/audit", "internal/build", "internal/bundle", "internal/check", "internal/clock", "internal/config", "internal/console", "internal/control", "internal/dashboard", "internal/deviceapi", "internal/doctor", "internal/egress", "internal/feature", "internal/hubapi", "internal/identity", "internal/lazyregexp", "internal/lease", "internal/link", "internal/machine", "internal/metrics", "internal/nodeagent", "internal/nodes", "internal/notify", "internal/payer", "internal/people", "internal/placement", "internal/pools", "internal/printable", "internal/proctree", "internal/prune", "internal/removal", "internal/sandbox", "internal/shelf", "internal/slurm", "internal/space", "internal/spacelog", "internal/stages", "internal/token", "internal/version", "internal/views", "internal/web", "migrations", "queue", "quota", "server", "worker"},
	"internal/nodeagent":             {"internal/link", "internal/nodes"},
	"internal/nodes":                 {"internal/link", "internal/placement", "internal/sqlrows"},
	"internal/nodessh":               {"internal/lazyregexp", "internal/nodes", "internal/printable", "internal/version"},
	"internal/notify":                {},
	"internal/pools":                 {"internal/slurm"},
	"internal/slurm":                 {"internal/lazyregexp"},
	"internal/audit":                 {"internal/sqlrows"},
	"internal/placement":             {"internal/lazyregexp"},
	"internal/payer":                 {"internal/identity", "internal/people", "internal/token", "internal/web", "queue", "quota", "server"},
	"server":                         {"internal/stack"},
	"gradioapi":                      {"internal/identity", "internal/people", "internal/pytext", "internal/shelf", "internal/token", "internal/web", "queue"},
	"internal/shelf":                 {"internal/pytext", "internal/web", "queue"},
	"internal/pytext":                {},
	"internal/pytext/pytexttest":     {},
	"internal/shelf/shelftest":       {"internal/shelf", "queue"},
	"internal/deviceapi":             {"internal/failpoint", "internal/identity", "internal/lease", "internal/people", "internal/token", "quota"},
	"internal/hubapi":                {"internal/identity", "internal/people", "quota"},
	"internal/openapi":               {"internal/control"},
	"internal/dashboard":             {"gradioapi", "internal/control", "internal/identity", "internal/openapi", "internal/people", "internal/views", "internal/web"},
	"internal/dashboard/storybook":   {"gpu", "gradioapi", "internal/audit", "internal/control", "internal/dashboard", "internal/doctor", "internal/lease", "internal/nodes", "internal/people", "internal/pools", "internal/space", "internal/spacelog", "internal/stages", "internal/version", "internal/views"},
	"internal/console":               {"gradioapi", "internal/identity", "internal/people", "internal/views", "internal/web"},
	"worker":                         {"internal/identity", "internal/lazyregexp", "internal/outbox", "internal/printable", "internal/proctree", "internal/sandbox", "internal/space", "queue"},
	"internal/lease":                 {"gpu", "internal/identity", "internal/space", "internal/sqlrows", "internal/stack", "quota"},
	"internal/lease/leasetest":       {},
	"internal/lease/brokertest":      {"gpu", "internal/lease"},
	"queue":                          {"internal/identity"},
	"quota":                          {"internal/people", "internal/sqlrows"},
	"gpu/nvml":                       {"gpu", "internal/kernelfile", "internal/lazyregexp"},
	"gpu/gputest":                    {"gpu"},
	"gpu":                            {},
	"internal/stack":                 {},
	"internal/space":                 {"internal/lazyregexp", "internal/nearest"},
	"internal/stages":                {},
	"internal/spacelog":              {"internal/lazyregexp", "internal/printable"},
	"internal/fetchspace":            {"internal/lazyregexp"},
	"internal/clock":                 {},
	"internal/identity":              {},
	"internal/token":                 {"internal/identity"},
	"internal/people":                {"internal/identity", "internal/lazyregexp", "internal/nearest", "internal/sqlrows"},
	"internal/web":                   {"internal/identity", "internal/lazyregexp"},
	"internal/build":                 {"internal/lazyregexp", "internal/removal"},
	"internal/prune":                 {"internal/build", "internal/fetchspace", "internal/lazyregexp", "internal/removal", "internal/shelf"},
	"internal/build/buildtest":       {},
	"internal/bundle":                {"internal/printable", "internal/removal", "internal/space"},
	"internal/check":                 {"gpu", "internal/lazyregexp", "internal/nearest", "internal/printable", "internal/space", "quota"},
	"internal/checkcli":              {"gpu", "internal/check", "internal/fetchspace", "internal/lazyregexp", "internal/printable", "internal/space", "internal/usage", "internal/version", "quota"},
	"internal/usage":                 {},
	"internal/version":               {"internal/usage"},
	"internal/checkrun":              {"gpu", "internal/build", "internal/check", "internal/config", "internal/host", "internal/printable", "worker"},
	"internal/doctor":                {"gpu", "internal/sandbox"},
	"internal/failpoint":             {},
	"migrations":                     {"internal/failpoint"},
	"examples/gotest":                {},
	"bench":                          {"gpu", "internal/build", "internal/control", "internal/identity", "internal/lease", "internal/link", "internal/machine", "internal/nodeagent", "internal/nodes", "internal/people", "internal/sandbox", "internal/space", "migrations", "quota"},
	"internal/measures":              {},
	"internal/packaging":             {},
	"internal/measures/measure":      {"internal/measures"},
	"internal/proctree":              {"internal/feature", "internal/kernelfile"},
	"internal/kernelfile":            {},
	"internal/proctree/proctreetest": {},
	"internal/control":               {"gpu", "internal/audit", "internal/clock", "internal/doctor", "internal/identity", "internal/lazyregexp", "internal/lease", "internal/nodes", "internal/notify", "internal/people", "internal/placement", "internal/spacelog", "internal/stages", "internal/version", "internal/views", "internal/web", "quota"},
	"internal/metrics":               {"gpu", "internal/egress", "internal/lease", "internal/notify", "internal/views"},
	"internal/views":                 {"gpu", "internal/identity", "internal/lease", "internal/people", "internal/space", "internal/stages", "quota"},
	"internal/cli/clidoc":            {"internal/check", "internal/cli"},
	"internal/cli/clidoc/gen":        {"internal/cli/clidoc", "internal/dashboard"},
	"internal/egress":                {},
	"internal/lazyregexp":            {},
	"internal/nearest":               {},
	"internal/sqlrows":               {},
	"internal/feature":               {},
	"internal/feature/featuretest":   {},
	"internal/web/certtest":          {},
	"internal/sandbox":               {"internal/failpoint", "internal/feature", "internal/removal"},
	"internal/outbox":                {},
	"internal/printable":             {},
	"internal/removal":               {},
	"internal/python":                {},
}

// keepers lists the packages that may import a library from outside. All others may not.
var keepers = map[string][]string{
	"github.com/labstack/echo/v4":            {"internal/host", "server", "gradioapi", "internal/deviceapi", "internal/hubapi", "internal/console", "internal/control", "internal/dashboard", "internal/dashboard/storybook", "internal/metrics", "internal/views"},
	"github.com/NVIDIA/go-nvml":              {"gpu/nvml"},
	"database/sql":                           {"bench", "internal/audit", "internal/host", "internal/lease", "internal/nodes", "internal/people", "internal/space", "internal/sqlrows", "internal/stages", "migrations", "quota"},
	"github.com/mattn/go-sqlite3":            {"migrations", "quota", "internal/lease", "bench"},
	"github.com/golang-jwt/jwt":              {"internal/token"},
	"github.com/vishvananda/netlink":         {"internal/proctree", "internal/sandbox"},
	"golang.org/x/net":                       {"internal/egress", "internal/sandbox"},
	"github.com/swaggest":                    {"internal/openapi"},
	"github.com/prometheus":                  {"internal/metrics"},
	"github.com/spf13/cobra":                 {"internal/checkcli", "internal/cli", "internal/cli/clidoc", "internal/usage", "internal/version"},
	"github.com/pressly/goose":               {"migrations"},
	"github.com/coreos/go-systemd":           {"internal/host"},
	"github.com/joho/godotenv":               {"internal/config"},
	"gopkg.in/natefinch/lumberjack.v2":       {"internal/spacelog"},
	"github.com/rogpeppe/go-internal":        {},
	"github.com/sethvargo/go-retry":          {"internal/notify"},
	"github.com/standard-webhooks":           {"internal/notify"},
	"github.com/chromedp/chromedp":           {"bench"},
	"spacehost/gpu/gputest":                  {},
	"spacehost/internal/lease/brokertest":    {},
	"spacehost/internal/pytext/pytexttest":   {},
	"spacehost/internal/shelf/shelftest":     {},
	"spacehost/internal/build/buildtest":     {},
	"spacehost/internal/feature/featuretest": {},
	"spacehost/internal/web/certtest":        {},
	"spacehost/internal/link/linktest":       {},
}

// pkg is what `go list -json` reports about a package.
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
