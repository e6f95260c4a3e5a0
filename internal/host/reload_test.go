package host

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"spacehost/internal/config"
	"spacehost/internal/control"
	"spacehost/internal/people"
	"spacehost/internal/space"
)

// reloadHost is a running host of a file. Its Spaces have an interpreter that fails, so each waits for its next try.
type reloadHost struct {
	*Host
	t    *testing.T
	file string
	end  context.CancelFunc // of Run
}

// labOf returns a file with two Spaces and further lines.
func labOf(top, spaces string) string {
	return "gpus: mock:1xH200\nconsole: 127.0.0.1:0\nisolation: none\n" + top + "\nspaces:\n" + spaces
}

const (
	spaceOne = "- {folder: SAMPLE, name: one, address: '127.0.0.1:0', python: /bin/false}\n"
	spaceTwo = "- {folder: SAMPLE, name: two, address: '127.0.0.1:0', python: /bin/false}\n"
)

func startReloadHost(t *testing.T, text string) *reloadHost {
	t.Helper()
	dir, err := os.MkdirTemp("", "reload") // t.TempDir() is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	r := &reloadHost{t: t, file: filepath.Join(dir, "lab.yaml")}
	r.write(text)
	settings, _, err := config.Load(r.file, filepath.Join(dir, "state"))
	if err != nil {
		t.Fatal(err)
	}
	if r.Host, err = New(settings, t.Output(), t.Output()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.end = cancel
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
		r.Close()
		_ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0) // New made this process a subreaper
	})
	select {
	case <-r.started:
	case <-time.After(30 * time.Second):
		t.Fatal("the host does not start")
	}
	return r
}

// write replaces the file. SAMPLE is the folder of the sample Space.
func (r *reloadHost) write(text string) {
	r.t.Helper()
	sample, err := filepath.Abs("../../examples/hello-zerogpu")
	if err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(r.file, []byte(strings.ReplaceAll(text, "SAMPLE", sample)), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

func (r *reloadHost) reload(text string) control.ReloadAnswer {
	r.t.Helper()
	r.write(text)
	answer, err := r.ReloadBy(r.t.Context(), "test")
	if err != nil || !answer.Applied {
		r.t.Fatalf("reload: %+v, %v", answer, err)
	}
	return answer
}

// get returns the status of GET /config at a Space, with a bearer token unless it is empty.
func (r *reloadHost) get(space, token string) int {
	r.t.Helper()
	return r.getAt(r.find(space).site().Addr.String(), "", token)
}

// getAt is get at an address, with a host name unless it is empty.
func (r *reloadHost) getAt(addr, host, token string) int {
	r.t.Helper()
	request, err := http.NewRequestWithContext(r.t.Context(), http.MethodGet, "http://"+addr+"/config", nil)
	if err != nil {
		r.t.Fatal(err)
	}
	request.Host = host
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	answer, err := ownClient.Do(request)
	if err != nil {
		r.t.Fatal(err)
	}
	answer.Body.Close()
	return answer.StatusCode
}

func (r *reloadHost) names() []string { return r.SpaceNames(nil) }

func (r *reloadHost) await(what string, ok func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatalf("%s: not within 30 s", what)
		}
	}
}

// freePorts returns loopback addresses that nothing listens at.
func freePorts(t *testing.T, n int) (addrs []string) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		addrs = append(addrs, l.Addr().String())
	}
	return addrs
}

func isFree(addr string) bool {
	l, err := net.Listen("tcp", addr)
	if err == nil {
		l.Close()
	}
	return err == nil
}

// TestReloadIsATransaction applies files that fail at each step. Each names its problem, and nothing of it is in force.
func TestReloadIsATransaction(t *testing.T) {
	r := startReloadHost(t, labOf("", spaceOne+spaceTwo))
	if _, err := r.people.Add(t.Context(), "zoe", "free", "operator"); err != nil {
		t.Fatal(err)
	}
	used, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer used.Close()
	free := freePorts(t, 1)[0]
	settings, tiers, spaces := r.settings(), r.Host.tiers.Load(), r.spaces.Load()
	three := "- {folder: SAMPLE, name: three, address: '" + free + "', python: /bin/false}\n"
	for _, row := range []struct{ name, text, want string }{
		{"invalid YAML", labOf("tiers: [", three), "invalid YAML"},
		{"a wrong key", labOf("keeep: 3d", three), `unknown key; did you mean "keep"?`},
		{"a setting of the host", labOf("keep: 30d\nwarm: 1m", spaceOne+three), "the host must be restarted for: warm 5m -> 1m. Nothing of the file is applied"},
		{"a level of isolation", labOf("", strings.Replace(spaceOne, "python", "isolation: namespaces, python", 1)+three), "space one: isolation none -> namespaces"},
		{"a level that was not tried", labOf("", spaceOne+strings.Replace(three, "python", "isolation: files, python", 1)), "no Space of this start has the level files"},
		{"a used address", labOf("people: [{name: ada}]", spaceOne+three+"- {folder: SAMPLE, name: four, address: '"+used.Addr().String()+"', python: /bin/false}\n"), used.Addr().String() + " is in use by another program"},
		{"a person of the operator", labOf("people: [{name: ada}, {name: zoe}]", spaceOne+three), "user zoe was created with `spacehost user add`"},
	} {
		t.Run(row.name, func(t *testing.T) {
			r.write(row.text)
			_, err := r.ReloadBy(t.Context(), "test")
			if refused, ok := errors.AsType[*control.ReloadRefusedError](err); !ok || !strings.Contains(refused.Error(), row.want) {
				t.Errorf("got %v, want a refusal with %q", err, row.want)
			}
			people, errPeople := r.people.List(t.Context())
			if errPeople != nil || len(people) != 1 {
				t.Errorf("people: %v (%v), want zoe alone", people, errPeople)
			}
			if r.settings() != settings || r.Host.tiers.Load() != tiers || r.spaces.Load() != spaces {
				t.Error("the running configuration has changed")
			}
			if !isFree(free) {
				t.Errorf("%s is still taken", free)
			}
		})
	}
	r.write(labOf("keep: 30d", spaceOne+three))
	answer, err := r.Reload(t.Context(), true)
	if err != nil || answer.Applied || len(answer.Changes) != 3 || r.settings() != settings || !isFree(free) {
		t.Errorf("a dry run: %+v, %v", answer, err)
	}
}

// TestReloadWithBadSpaces: a Space whose README.md is wrong keeps its address and its files, a new one is tried again, and
// the rest of the file is applied.
func TestReloadWithBadSpaces(t *testing.T) {
	folder := t.TempDir()
	readme := func(text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(folder, "README.md"), []byte("---\n"+text+"\nsdk: gradio\n---\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	readme("title: good")
	if err := os.WriteFile(filepath.Join(folder, "app.py"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	free := freePorts(t, 2)
	bad := func(addr, rest string) string {
		return "- {folder: " + folder + ", name: bad, address: '" + addr + "', python: /bin/false" + rest + "}\n"
	}
	r := startReloadHost(t, labOf("", spaceOne+bad(free[0], "")))
	was, running := r.find("bad"), r.find("bad").space()
	r.await("the first try", func() bool { return stageIsFinal(was) })
	readme("sdk_version: [")

	r.write(labOf("drain: 30s", spaceTwo+bad(free[1], ", visibility: protected")+"- {folder: "+t.TempDir()+", name: empty, address: '127.0.0.1:0'}\n"))
	dry, err := r.Reload(t.Context(), true)
	if err != nil || len(dry.Failed) != 2 || r.find("two") != nil {
		t.Errorf("dry run: %+v, %v", dry, err)
	}
	answer := r.reload(labOf("drain: 30s", spaceTwo+bad(free[1], ", visibility: protected")+"- {folder: "+t.TempDir()+", name: empty, address: '127.0.0.1:0'}\n"))
	if got := r.names(); r.settings().Drain != 30*time.Second || !slices.Equal(got[:3], []string{"two", "bad", "empty"}) {
		t.Errorf("drain %v, Spaces %v", r.settings().Drain, got)
	}
	if len(answer.Failed) != 2 || !answer.Failed[0].Kept || !strings.HasPrefix(answer.Failed[0].String(), "space bad: README.md line 3: ") || !strings.HasSuffix(answer.Failed[0].String(), "its former values of address: correct the files and run `spacehost reload` again.") || answer.Failed[1].Kept || !strings.Contains(answer.Failed[1].String(), "space empty: ") {
		t.Errorf("failed: %+v", answer.Failed)
	}
	if r.find("bad") != was || was.space() != running || was.settings().Visibility != config.Protected || !isFree(free[1]) || slices.ContainsFunc(answer.Changes, func(c control.ConfigChange) bool { return c.Name == "bad" && c.Key != "visibility" }) {
		t.Errorf("the Space with a wrong README.md has changed: %+v", answer.Changes)
	}
	r.await("the new Space is tried", func() bool { return r.find("empty").supervisor.Status().Stage == space.NoAppFile })

	r.write(labOf("", spaceOne+bad(free[1], "")+"- {folder: SAMPLE, name: taker, address: '"+free[0]+"', python: /bin/false}\n"))
	if _, err := r.ReloadBy(t.Context(), "test"); err == nil || !strings.Contains(err.Error(), "the Space bad keeps its address "+free[0]+", because its files are wrong (README.md line 3:") || !strings.Contains(err.Error(), "and the file gives it to taker; correct the files first") {
		t.Errorf("another Space takes the address of the kept one: %v", err)
	}
	readme("title: good again")
	answer = r.reload(labOf("drain: 30s", spaceTwo+bad(free[1], ", visibility: protected")))
	if len(answer.Failed) != 0 || r.find("bad") != was || was.settings().Visibility != config.Protected {
		t.Errorf("after the correction: %+v", answer)
	}
	r.await("the move", func() bool { return isFree(free[0]) && was.settings().Addr.Value == free[1] })
}

// TestReloadRevokesAtABadSpace: a person that the file removes from the members loses access, also while README.md is wrong.
func TestReloadRevokesAtABadSpace(t *testing.T) {
	folder := t.TempDir()
	for name, text := range map[string]string{"README.md": "---\ntitle: good\nsdk: gradio\n---\n", "app.py": ""} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	members := func(names string) string {
		return labOf("people: [{name: ada}]", "- {folder: "+folder+", name: bad, address: '127.0.0.1:0', python: /bin/false, visibility: private, members: ["+names+"]}\n")
	}
	r := startReloadHost(t, labOf("", spaceOne))
	if _, err := r.people.Add(t.Context(), "zoe", "free", "operator"); err != nil {
		t.Fatal(err)
	}
	token, _, err := r.people.CreateToken(t.Context(), "zoe", "", people.FullRights())
	if err != nil {
		t.Fatal(err)
	}
	r.reload(members("ada, zoe"))
	if got := r.get("bad", token); got != http.StatusServiceUnavailable {
		t.Fatalf("a member gets %d, want 503 until the start", got)
	}
	if err := os.WriteFile(filepath.Join(folder, "README.md"), []byte("---\nsdk_version: [\n---\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	answer := r.reload(members("ada"))
	if len(answer.Failed) != 1 || !answer.Failed[0].Kept || len(answer.Failed[0].Keys) != 0 || len(answer.Changes) != 1 || answer.Changes[0].Key != "members" {
		t.Errorf("answer: %+v", answer)
	}
	if got := r.get("bad", token); got != http.StatusNotFound {
		t.Errorf("a removed member gets %d, want 404", got)
	}
}

// TestReloadOfSpaces adds, removes and moves Spaces. An unchanged Space is not restarted, and addresses change hands.
func TestReloadOfSpaces(t *testing.T) {
	free := freePorts(t, 2)
	three := "- {folder: SAMPLE, name: three, address: '" + free[0] + "', python: /bin/false}\n"
	r := startReloadHost(t, labOf("", spaceOne+three))
	one, before := r.find("one"), r.find("one").state.Load()

	r.reload(labOf("", spaceOne+three+"- {folder: SAMPLE, name: four, host: four.example, python: /bin/false}\n"+
		strings.Replace(spaceTwo, "127.0.0.1:0", free[1], 1)+"address: '127.0.0.1:0'\n"))
	if got := r.names(); !slices.Equal(got, []string{"one", "three", "four", "two"}) {
		t.Fatalf("Spaces: %v", got)
	}
	if got := r.get("two", ""); got != http.StatusServiceUnavailable {
		t.Errorf("an added Space answers %d, want 503 until its start", got)
	}

	// "two" moves to the address of "three", which ends.
	r.reload(labOf("", spaceOne+strings.Replace(spaceTwo, "127.0.0.1:0", free[0], 1)+"- {folder: SAMPLE, name: four, host: four.example, python: /bin/false}\naddress: '127.0.0.1:0'\n"))
	r.await("the end of a removed Space", func() bool { return slices.Equal(r.names(), []string{"one", "two", "four"}) })
	r.await("the move of a Space", func() bool { return r.find("two").url() == "http://"+free[0] && isFree(free[1]) })
	if got := r.get("two", ""); got != http.StatusServiceUnavailable {
		t.Errorf("a moved Space answers %d, want 503 until its start", got)
	}
	// "four" gets another name, and "two" joins it at the shared address.
	r.reload(labOf("", spaceOne+strings.Replace(spaceTwo, "address: '127.0.0.1:0'", "host: two.example", 1)+"- {folder: SAMPLE, name: four, host: five.example, python: /bin/false}\naddress: '127.0.0.1:0'\n"))
	r.await("the move to the shared address", func() bool { return isFree(free[0]) })
	for host, want := range map[string]int{"two.example": http.StatusServiceUnavailable, "five.example": http.StatusServiceUnavailable, "four.example": http.StatusNotFound} {
		r.await(host+" at the shared address", func() bool { return r.getAt(r.find("four").site().Addr.String(), host, "") == want })
	}
	if r.find("one") != one || one.state.Load().settings.Addr != before.settings.Addr || one.latest() != one.state.Load() {
		t.Error("the unchanged Space is not the same")
	}
}

// TestReloadOfAccess checks that tiers, people, members and visibility take effect at once, without a restart of the Space.
// People of the operator are members like those of the file.
func TestReloadOfAccess(t *testing.T) {
	r := startReloadHost(t, labOf("", spaceOne))
	one := r.find("one")
	if _, err := r.people.Add(t.Context(), "zoe", "free", "operator"); err != nil {
		t.Fatal(err)
	}
	token, _, err := r.people.CreateToken(t.Context(), "zoe", "", people.FullRights())
	if err != nil {
		t.Fatal(err)
	}
	wantStatus := func(when string, without, with int) {
		t.Helper()
		if got := r.get("one", ""); got != without {
			t.Errorf("%s, without a token: %d, want %d", when, got, without)
		}
		if got := r.get("one", token); got != with {
			t.Errorf("%s, with zoe's token: %d, want %d", when, got, with)
		}
	}
	const open, hidden = http.StatusServiceUnavailable, http.StatusNotFound
	private := func(members string) string {
		return strings.Replace(spaceOne, "python", "visibility: private, concurrency: 3"+members+", python", 1)
	}
	wantStatus("public", open, open)
	r.reload(labOf("", private("")))
	wantStatus("private to all people", hidden, open)
	if got := r.perSpace("one"); got != 3 {
		t.Errorf("concurrency %d, want 3", got)
	}
	r.reload(labOf("people: [{name: ada, tier: staff}]\ntiers: {staff: {unlimited: true}}", private(", members: [ada]")))
	wantStatus("private to ada", hidden, hidden)
	if err := r.CheckTier("staff"); err != nil {
		t.Error(err)
	}
	r.reload(labOf("people: [{name: ada}]", private(", members: [ada, zoe]")))
	wantStatus("private to ada and zoe", hidden, open)
	if err := r.CheckTier("staff"); err == nil {
		t.Error("a removed tier is still known")
	}
	if r.find("one") != one || one.latest() != one.state.Load() {
		t.Error("the Space restarts")
	}
}

// TestReloadRestartsASpace checks that a Space with a changed Secret gets it with its next start, which follows at once.
func TestReloadRestartsASpace(t *testing.T) {
	r := startReloadHost(t, labOf("", spaceOne))
	one := r.find("one")
	r.await("the first try", func() bool { return stageIsFinal(one) })
	answer := r.reload(labOf("", strings.Replace(spaceOne, "python", "secrets: {KEY: marker}, python", 1)))
	if len(answer.Changes) != 1 || answer.Changes[0].Effect != "restart" || strings.Contains(answer.Changes[0].Text, "marker") {
		t.Errorf("changes: %+v", answer.Changes)
	}
	r.await("the next try", func() bool { return one.settings().Secrets["KEY"] == "marker" && stageIsFinal(one) })
}

// stageIsFinal reports whether a try has failed.
func stageIsFinal(s *spaceRun) bool {
	return strings.HasSuffix(string(s.supervisor.Status().Stage), "ERROR")
}

// TestConfigWatch checks on virtual time that a change is applied once, after a quiet look, and that a mistake is reported only
// when it stays.
func TestConfigWatch(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lab.yaml")
	var wrong atomic.Bool
	var reloads atomic.Int32
	synctest.Test(t, func(t *testing.T) {
		write := func(text string) {
			t.Helper()
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		write("1")
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		ticks := time.NewTicker(watchInterval)
		w := configWatch{sources: func() []string { return []string{path} }, check: func() error {
			if wrong.Load() {
				return errors.New("a mistake")
			}
			return nil
		}, reload: func() { reloads.Add(1) }}
		go func() { defer close(ended); w.run(ctx, ticks.C) }()
		defer func() { cancel(); <-ended }()
		time.Sleep(watchInterval / 2) // between two looks
		wantAfter := func(looks int, what string, n int32) {
			t.Helper()
			time.Sleep(time.Duration(looks) * watchInterval)
			synctest.Wait()
			if got := reloads.Load(); got != n {
				t.Errorf("%s: %d reloads, want %d", what, got, n)
			}
		}
		wantAfter(3, "without a change", 0)
		write("22")
		wantAfter(1, "at the first look", 0)
		wantAfter(1, "at a quiet look", 1)
		wantAfter(5, "later", 1)
		wrong.Store(true)
		write("333")
		wantAfter(2, "of half of a file", 1)
		write("4444")
		wrong.Store(false)
		wantAfter(2, "of the whole file", 2)
		wrong.Store(true)
		write("55555")
		wantAfter(wrongLooks, "of a mistake that is new", 2)
		wantAfter(1, "of a mistake that stays", 3)
		wantAfter(5, "of a reported mistake", 3)
	})
}

// TestConfigWatchSeesEditDuringStart: a file that has changed between its reading and the first look is applied.
func TestConfigWatchSeesEditDuringStart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lab.yaml")
	if err := os.WriteFile(path, []byte("edited"), 0o600); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		var reloads atomic.Int32
		w := configWatch{
			sources: func() []string { return []string{path} }, applied: map[string]fileState{path: {size: 1}},
			check: func() error { return nil }, reload: func() { reloads.Add(1) },
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		ticks := time.NewTicker(watchInterval)
		go func() { defer close(ended); w.run(ctx, ticks.C) }()
		time.Sleep(5*watchInterval + watchInterval/2)
		synctest.Wait()
		if got := reloads.Load(); got != 1 {
			t.Errorf("%d reloads, want one", got)
		}
		cancel()
		<-ended
	})
}
