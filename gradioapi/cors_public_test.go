package gradioapi

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"spacehost/internal/web"
)

// TestCrossSiteAtAPublicAddress checks a Space with a public address whose proxy passes the host's own address on. The Space's own
// pages are no other site, and other sites have no more access than at the own address.
func TestCrossSiteAtAPublicAddress(t *testing.T) {
	public := web.Address{Scheme: "https", Host: "hello.lab.example"}
	for _, row := range []struct {
		received, origin string
		refused          bool
	}{
		{"127.0.0.1:7861", "https://hello.lab.example", false}, {"127.0.0.1:7861", "https://evil.example", true}, {"127.0.0.1:7861", "http://127.0.0.1:7861", false},
		{"hello.lab.example", "https://evil.example", false}, {"127.0.0.1:7861", "", false},
	} {
		r := httptest.NewRequest(http.MethodPost, "http://"+row.received+"/gradio_api/queue/join", nil)
		if row.origin != "" {
			r.Header.Set("Origin", row.origin)
		}
		if got := isCrossSite(web.AtAddress(r, public)); got != row.refused {
			t.Errorf("received at %s from %q: refused %v, want %v", row.received, row.origin, got, row.refused)
		}
	}
}
