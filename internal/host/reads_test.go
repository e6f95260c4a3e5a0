package host

import (
	"context"
	"database/sql"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"spacehost/gpu"
	"spacehost/internal/config"
	"spacehost/internal/control"
	"spacehost/internal/identity"
	"spacehost/internal/people"
	"spacehost/migrations"
)

// Bearer tokens are looked up and accounts are read while another program holds the database lock and the host's only write
// connection is in use.
func TestReadsDoNotWaitForWrites(t *testing.T) {
	h := serveTestHost(t)
	if _, err := h.people.Add(t.Context(), "ada", "pro", "test"); err != nil {
		t.Fatal(err)
	}
	token, _, err := h.people.CreateToken(t.Context(), "ada", "", people.FullRights())
	if err != nil {
		t.Fatal(err)
	}
	identify := func(token string) (identity.Identity, error) {
		r, _ := http.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("Authorization", "Bearer "+token)
		return h.payer.ConsoleIdentity(r)
	}

	unlock := lockDatabase(t, h.state.path("spacehost.db"))
	writer, err := h.db.Conn(t.Context()) // takes the only write connection, as a writer does that waits for the lock
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	defer unlock()
	if payer, err := identify(token); err != nil || payer.Key() != "user:ada" {
		t.Errorf("bearer token: got %s (%v), want user:ada", payer, err)
	}
	key, err := control.ReadKey(h.state.dir)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", h.state.path("control.sock"))
	}}}
	defer client.CloseIdleConnections()
	for _, path := range []string{"/account?identity=ada", "/quota", "/ledger?identity=ada&limit=20", "/explain?identity=ada", "/people", "/tokens", "/lease?limit=10"} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://spacehost"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set(control.KeyHeader, key)
		answer, err := client.Do(r)
		if err != nil {
			t.Errorf("GET %s: %v", path, err)
			continue
		}
		if answer.Body.Close(); answer.StatusCode != http.StatusOK {
			t.Errorf("GET %s: %s, want 200", path, answer.Status)
		}
	}
}

// serveTestHost starts the parts of a host that answer requests, without a Space's process, on a new state folder.
func serveTestHost(t *testing.T) *Host {
	t.Helper()
	state, err := os.MkdirTemp("", "reads") // t.TempDir() is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(state) })
	settings := config.Settings{
		State: state, Spaces: []config.SpaceSettings{{Dir: "../../examples/hello-zerogpu", Addr: config.Setting{Value: "127.0.0.1:0"}, Visibility: config.Public}},
		Console: config.Setting{Value: "127.0.0.1:0"}, GPUs: config.Setting{Value: "mock:1xH200"}, Hardware: config.Setting{Value: gpu.AutoHardware},
		Preset: config.Setting{Value: "2026-04"}, LocalTier: config.Setting{Value: "free"}, Share: 1, QueueTimeout: time.Minute, IdentityMode: "direct",
	}
	h, err := New(settings, t.Output(), t.Output())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	// The host made this process a subreaper; orphans of later tests must go to init, which reaps them.
	t.Cleanup(func() { _ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0) })
	serving, stop := context.WithCancel(context.Background())
	served := make(chan error, 3)
	go func() { served <- h.server.Run(serving) }()
	go func() { served <- h.broker.Run(serving) }()
	go func() { served <- h.all()[0].queue.Run(serving) }()
	t.Cleanup(func() { stop(); <-served; <-served; <-served })
	return h
}

// lockDatabase locks the database with BEGIN IMMEDIATE, as another program would.
func lockDatabase(t *testing.T, path string) (unlock func()) {
	t.Helper()
	other, err := sql.Open("sqlite3", "file:"+path+"?_txlock=immediate")
	if err != nil {
		t.Fatal(err)
	}
	tx, err := other.Begin()
	if err != nil {
		t.Fatal(err)
	}
	return func() { _ = tx.Rollback(); _ = other.Close() }
}

func TestReadsRefuseToWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "spacehost.db")
	db, err := migrations.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	reads, err := migrations.OpenReads(path)
	if err != nil {
		t.Fatal(err)
	}
	defer reads.Close()
	if _, err := reads.Exec(`INSERT INTO windows (identity) VALUES ('ada')`); err == nil {
		t.Error("INSERT through the read handle succeeded, want an error")
	}
	if _, err := db.Exec(`INSERT INTO windows (identity) VALUES ('ada')`); err != nil {
		t.Fatal(err)
	}
	var n int
	if err := reads.QueryRow(`SELECT count(*) FROM windows`).Scan(&n); err != nil || n != 1 {
		t.Errorf("read %d windows (%v), want the 1 just committed", n, err)
	}
}
