package control

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/labstack/echo/v4"
)

func TestRebuildSpace(t *testing.T) {
	host := &fakeHost{spaces: []string{"demo", "broken"}, rebuild: func(name string, progress func(BuildStep)) (RebuildAnswer, error) {
		progress(BuildStep{Index: 1, Total: 2, Text: "creating", State: "finished", Seconds: 1.5})
		if name == "broken" {
			return RebuildAnswer{}, errors.New("requirements.txt: no package")
		}
		return RebuildAnswer{Space: name, Environment: "/environments/1", DrainSeconds: 60, Sharing: []string{"other"}}, nil
	}}
	const step = `data: {"step":{"index":1,"total":2,"text":"creating","state":"finished","seconds":1.5}}` + "\n\n"
	for _, tt := range []struct {
		body   string
		status int
		want   string
	}{
		{`{"space": "demo"}`, 200, step + `data: {"done":{"space":"demo","environment":"/environments/1","drainSeconds":60,"sharing":["other"]}}` + "\n\n"},
		{`{"space": "broken", "now": true}`, 200, step + `data: {"error":"requirements.txt: no package"}` + "\n\n"},
		{`{"space": "dmo"}`, 400, `{"detail":"unknown Space \"dmo\"; Spaces of this host: demo, broken"}` + "\n"},
		{`{"spaces": "demo"}`, 400, ""},
	} {
		var recorded Action
		e := echo.New()
		e.Use(Audit(host.Operator, func(a Action) { recorded = a }))
		New(Config{Host: host}).Register(e)
		r := httptest.NewRequest(http.MethodPost, "/rebuild", strings.NewReader(tt.body))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		e.ServeHTTP(w, r)
		if got := w.Body.String(); w.Code != tt.status || tt.want != "" && got != tt.want {
			t.Errorf("%s: %d %s; want %d %s", tt.body, w.Code, got, tt.status, tt.want)
		}
		if failed := strings.Contains(tt.want, `{"error":`); failed && (recorded.Status != 500 || recorded.Refusal != "requirements.txt: no package") || !failed && recorded.Status != tt.status {
			t.Errorf("%s: recorded %+v", tt.body, recorded)
		}
		if got := w.Header().Get("X-Accel-Buffering"); tt.status == 200 && got != "no" {
			t.Errorf("%s: X-Accel-Buffering %q, want no: nginx would buffer the stream", tt.body, got)
		}
	}
}
