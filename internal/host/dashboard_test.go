package host

import (
	"slices"
	"strings"
	"testing"

	"spacehost/internal/dashboard"
)

// TestRoutesAreInTheDocument compares the routes of the console with the OpenAPI document, in both directions.
func TestRoutesAreInTheDocument(t *testing.T) {
	var served, described []string
	for _, r := range serveTestHost(t).console.Echo.Routes() {
		if strings.HasPrefix(r.Path, "/api/spacehost/") && !strings.Contains(r.Path, "*") && r.Method != "echo_route_not_found" {
			served = append(served, r.Method+" "+r.Path)
		}
	}
	for _, o := range dashboard.Operations() {
		described = append(described, o.Method+" "+o.Path)
	}
	for _, route := range served {
		if !slices.Contains(described, route) {
			t.Errorf("%s is not in the document: declare an Endpoint and mount it as in internal/dashboard/operations.go", route)
		}
	}
	for _, route := range described {
		if !slices.Contains(served, route) {
			t.Errorf("%s is in the document, and the console does not serve it", route)
		}
	}
	if len(served) < 30 {
		t.Errorf("only %d routes: %q", len(served), served)
	}
}
