package control

import (
	"net/url"
	"testing"

	"spacehost/internal/views"
)

func TestRequestPaths(t *testing.T) {
	for _, row := range []struct {
		got       Request
		method    string
		path      string
		hasNoBody bool
	}{
		{ListPeople.Request(NoBody{}), "GET", "/people", true},
		{SetTier.Request(SetTierRequest{Tier: "pro"}, "a/../b"), "POST", "/people/a%2F..%2Fb/tier", false},
		{RevokeToken.Request(NoBody{}, "k3v7q2m4xa"), "DELETE", "/tokens/k3v7q2m4xa", true},
		{ListDenials.Request(NoBody{}).With(url.Values{"space": {"demo"}}), "GET", "/via?space=demo", true},
		{ExplainAccount.Request(NoBody{}).With(AccountQuery("ada", views.Query{Size: "xlarge", Seconds: "45"})), "GET", "/explain?identity=ada&seconds=45&size=xlarge", true},
	} {
		if row.got.Method != row.method || row.got.Path != row.path || (row.got.Body == nil) != row.hasNoBody {
			t.Errorf("got %+v, want %s %s", row.got, row.method, row.path)
		}
	}
}
