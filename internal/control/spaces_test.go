package control

import (
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/labstack/echo/v4"

	"spacehost/internal/spacelog"
)

// TestSpaceEndpoints pauses and resumes a Space, and asks for its log.
func TestSpaceEndpoints(t *testing.T) {
	host := &fakeHost{spaces: []string{"demo"}, state: t.TempDir()}
	w := spacelog.NewWriter(host.state, "demo", spacelog.Run, nil)
	defer w.Close()
	w.Print("stdout", "one")
	w.Print("stderr", "ValueError: two")
	e := echo.New()
	New(Config{Host: host}).Register(e)
	for _, row := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"GET", "/space?space=demo", "", 200, `"queued":100,`},
		{"GET", "/space?space=demo&limit=5", "", 200, `"stages":[],"usage":[],`},
		{"GET", "/space?space=demo&limit=0", "", 400, "limit="},
		{"GET", "/space?space=dmo", "", 400, `unknown Space \"dmo\"`},
		{"GET", "/space", "", 400, "Space"},
		{"GET", "/space/log?space=demo", "", 200, `"stream":"stdout","text":"one"}`},
		{"GET", "/space/log?space=demo&stream=stderr&stream=host&level=error&text=TWO&limit=9", "", 200, `"text":"ValueError: two","level":"error"}],"after":"`},
		{"GET", "/space/log?space=demo&kind=build", "", 200, `{"lines":[],"after":"0-0"}`},
		{"GET", "/space/log?space=demo&kind=build&after=0-0", "", 200, `{"lines":[],"after":"0-0"}`},
		{"GET", "/space/log?space=demo&kind=../run", "", 400, "is no log of a Space"},
		{"GET", "/space/log?space=../demo", "", 400, "unknown Space"},
		{"GET", "/space/log?space=demo&before=x", "", 400, "is no position in a log"},
		{"GET", "/space/log?space=demo&before=1-1&after=1-1", "", 400, "exclude each other"},
		{"GET", "/space/log?space=demo&level=info", "", 400, "is not a level"},
		{"GET", "/space/log?space=demo&limit=many", "", 400, "limit="},
		{"POST", "/space/resume", `{"space":"demo"}`, 400, "demo is not paused; its stage is RUNNING"},
		{"POST", "/space/pause", `{"space":"dmo"}`, 400, "unknown Space"},
		{"POST", "/space/pause", `{"name":"demo"}`, 400, "unknown field"},
		{"POST", "/space/pause", `{"space":"demo","reason":" new model "}`, 202, `"reason":"new model","by":"uid 1000"`},
		{"POST", "/restart", `{"space":"demo"}`, 400, "demo is paused by uid 1000; resume it first: spacehost space resume demo"},
		{"POST", "/rebuild", `{"space":"demo"}`, 400, "demo is paused by uid 1000"},
		{"POST", "/space/resume", `{"space":"demo"}`, 202, `{"space":"demo"}`},
		{"POST", "/restart", `{"space":"demo"}`, 202, `"space":"demo"`},
		{"POST", "/space/move", `{"space":"dmo","node":"gpu1"}`, 400, "unknown Space"},
		{"POST", "/space/move", `{"space":"demo","node":"gpu9"}`, 400, `{"detail":"no node is named gpu9"}`},
		{"POST", "/space/move", `{"space":"demo","node":"gpu1"}`, 202, `{"space":"demo","node":"gpu1","drainSeconds":60}`},
	} {
		r := httptest.NewRequest(row.method, row.path, strings.NewReader(row.body))
		r.Header.Set("Content-Type", "application/json")
		answer := httptest.NewRecorder()
		e.ServeHTTP(answer, r)
		if got := answer.Body.String(); answer.Code != row.status || !strings.Contains(got, row.want) {
			t.Errorf("%s %s %s: %d %s; want %d %s", row.method, row.path, row.body, answer.Code, got, row.status, row.want)
		}
	}
	if q := host.query; q.Limit != shownLines || !slices.Equal(q.Stream, nil) {
		t.Errorf("the last query: %+v", q)
	}
}
