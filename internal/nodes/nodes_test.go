package nodes

import (
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"spacehost/migrations"
)

var noon = time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC)

// fixture is a Store in a real database with a clock that the test sets.
type fixture struct {
	*Store
	db *sql.DB
	at time.Time
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	path := filepath.Join(t.TempDir(), "spacehost.db")
	db, err := migrations.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	reads, err := migrations.OpenReads(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { reads.Close() })
	f := &fixture{db: db, at: noon}
	f.Store = NewStore(db, reads, func() time.Time { return f.at })
	return f
}

func (f *fixture) token(t *testing.T, names Pattern, uses int) Hash {
	t.Helper()
	id := rand.Text()
	hash := sha256.Sum256([]byte(id))
	expires, err := f.CreateJoin(t.Context(), JoinSpec{ID: id, Hash: hash, Names: names, Uses: uses, Life: time.Hour, By: "root"})
	if err != nil || !expires.Equal(f.at.Add(time.Hour)) {
		t.Fatal(expires, err)
	}
	return hash
}

func (f *fixture) join(t *testing.T, name string, key Fingerprint) {
	t.Helper()
	if _, err := f.Redeem(t.Context(), f.token(t, Pattern(name), 1), name, key); err != nil {
		t.Fatal(err)
	}
}

func codeOf(err error) JoinCode {
	refused, ok := errors.AsType[*JoinError](err)
	if !ok {
		return ""
	}
	return refused.Code
}

// TestRedeem checks each reason for which a join is refused, and that a repetition is none.
func TestRedeem(t *testing.T) {
	f := newFixture(t)
	one, any := f.token(t, "gpu2", 1), f.token(t, "slurm-*", 0)
	f.join(t, "gpu1", Fingerprint{1})
	f.join(t, "gone", Fingerprint{9})
	if _, err := f.Revoke(t.Context(), "gone"); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		what  string
		hash  Hash
		name  string
		key   Fingerprint
		later time.Duration
		want  JoinCode
	}{
		{"unknown", Hash{}, "gpu2", Fingerprint{2}, 0, TokenUnknown},
		{"another name", one, "gpu3", Fingerprint{2}, 0, NameRefused},
		{"joins", one, "gpu2", Fingerprint{2}, 0, ""},
		{"the same agent again", one, "gpu2", Fingerprint{2}, 2 * time.Hour, ""},
		{"another agent of that name", one, "gpu2", Fingerprint{3}, 0, TokenUsed},
		{"a prefix", any, "slurm-1", Fingerprint{4}, 0, ""},
		{"a prefix again", any, "slurm-2", Fingerprint{5}, 59 * time.Minute, ""},
		{"the name of another", any, "slurm-1", Fingerprint{6}, 0, NameTaken},
		{"without the prefix", any, "gpu9", Fingerprint{6}, 0, NameRefused},
		{"expired", any, "slurm-3", Fingerprint{7}, time.Hour, TokenExpired},
		{"a taken name", f.token(t, "*", 1), "gpu1", Fingerprint{8}, 0, NameTaken},
		{"a revoked name", f.token(t, "*", 1), "gone", Fingerprint{9}, 0, NameRevoked},
	} {
		f.at = noon.Add(row.later)
		n, err := f.Redeem(t.Context(), row.hash, row.name, row.key)
		if codeOf(err) != row.want || (err == nil) != (row.want == "") {
			t.Errorf("%s: got %v, want code %q", row.what, err, row.want)
		}
		if err == nil && (n.Name != row.name || n.JoinedBy != "root" || f.Authorize(t.Context(), row.name, row.key) != nil) {
			t.Errorf("%s: the node is %+v", row.what, n)
		}
	}
}

// TestRedeemOnce: of several agents with one token, one joins.
func TestRedeemOnce(t *testing.T) {
	f := newFixture(t)
	secret := f.token(t, "*", 1)
	var group sync.WaitGroup
	errs := make([]error, 20)
	for i := range errs {
		group.Go(func() { _, errs[i] = f.Redeem(t.Context(), secret, "node"+string(rune('a'+i)), Fingerprint{byte(i)}) })
	}
	group.Wait()
	joined := 0
	for _, err := range errs {
		if err == nil {
			joined++
		} else if codeOf(err) != TokenUsed {
			t.Errorf("got %v, want code %s", err, TokenUsed)
		}
	}
	if all, err := f.List(t.Context()); err != nil || len(all) != 1 || joined != 1 {
		t.Errorf("%d agents joined, and the list has %d (%v), want 1", joined, len(all), err)
	}
}

// TestHostIsNoNode: the name of the front's own machine is refused, also with a token for any name.
func TestHostIsNoNode(t *testing.T) {
	f := newFixture(t)
	_, err := f.Redeem(t.Context(), f.token(t, "*", 1), "host", Fingerprint{1})
	if _, ok := errors.AsType[*BadNameError](err); !ok {
		t.Errorf("got %v", err)
	}
}

// TestCreateJoin: wrong values are refused, and tokens that expired long ago are deleted.
func TestCreateJoin(t *testing.T) {
	f := newFixture(t)
	f.token(t, "gpu2", 1)
	for _, spec := range []JoinSpec{
		{Names: "GPU2", Uses: 1, Life: time.Hour}, {Names: "", Uses: 1, Life: time.Hour}, {Names: "a*b", Uses: 1, Life: time.Hour}, {Names: "-*", Uses: 1, Life: time.Hour},
		{Names: "host", Uses: 1, Life: time.Hour},
		{Names: "*", Uses: -1, Life: time.Hour}, {Names: "*", Uses: MaxUses + 1, Life: time.Hour}, {Names: "*", Uses: 1}, {Names: "*", Uses: 1, Life: MaxLife + 1},
	} {
		if _, err := f.CreateJoin(t.Context(), spec); err == nil {
			t.Errorf("%+v is accepted", spec)
		}
	}
	f.at = noon.Add(keepEnded + 2*time.Hour)
	f.token(t, "*", 1)
	var stored int
	if err := f.db.QueryRow(`SELECT count(*) FROM joins`).Scan(&stored); err != nil || stored != 1 {
		t.Errorf("%d join tokens are stored (%v), want the new one", stored, err)
	}
}

// TestAuthorize: only the key with which a node has joined is admitted, and none after a revocation.
func TestAuthorize(t *testing.T) {
	f := newFixture(t)
	f.join(t, "gpu2", Fingerprint{2})
	for _, row := range []struct {
		name string
		key  Fingerprint
	}{{"gpu3", Fingerprint{2}}, {"gpu2", Fingerprint{3}}} {
		refused, ok := errors.AsType[*RefusedError](f.Authorize(t.Context(), row.name, row.key))
		if !ok || !refused.Revoked.IsZero() {
			t.Errorf("%s with key %d: got %v", row.name, row.key[0], refused)
		}
	}
	f.at = noon.Add(time.Minute)
	if _, err := f.Revoke(t.Context(), "gpu2"); err != nil {
		t.Fatal(err)
	}
	f.at = noon.Add(time.Hour)
	n, err := f.Revoke(t.Context(), "gpu2")
	if err != nil || !n.RevokedAt.Equal(noon.Add(time.Minute)) {
		t.Errorf("revoked at %s (%v), want the first time", n.RevokedAt, err)
	}
	if refused, ok := errors.AsType[*RefusedError](f.Authorize(t.Context(), "gpu2", Fingerprint{2})); !ok || !refused.Revoked.Equal(n.RevokedAt) {
		t.Errorf("after a revocation: got %v", refused)
	}
}

// TestChanges: drains, what agents report, and unknown names.
func TestChanges(t *testing.T) {
	f := newFixture(t)
	f.join(t, "gpu2", Fingerprint{2})
	if err := f.Seen(t.Context(), "gpu2", "1.4.0", []string{"h200"}); err != nil {
		t.Fatal(err)
	}
	n, err := f.Drain(t.Context(), "gpu2", "new fan", "root")
	if err != nil || n.Drain == nil || *n.Drain != (Drain{noon, "root", "new fan"}) || n.Version != "1.4.0" || len(n.Labels) != 1 || !n.SeenAt.Equal(noon) {
		t.Errorf("got %+v (%v)", n, err)
	}
	f.at = noon.Add(time.Minute)
	if err := f.SeenAt(t.Context(), f.at, "gpu2"); err != nil {
		t.Fatal(err)
	}
	if err := f.SeenAt(t.Context(), noon, "gpu2"); err != nil { // of an earlier link, which has ended later
		t.Fatal(err)
	}
	if n, err = f.Return(t.Context(), "gpu2"); err != nil || n.Drain != nil || !n.SeenAt.Equal(f.at) {
		t.Errorf("after the return: %+v (%v)", n, err)
	}
	unknown := (*UnknownError)(nil)
	for what, err := range map[string]error{
		"drain": second(f.Drain(t.Context(), "x", "", "")), "return": second(f.Return(t.Context(), "x")), "revoke": second(f.Revoke(t.Context(), "x")),
		"forget": second(f.Forget(t.Context(), "x")), "get": second(f.Get(t.Context(), "x")), "seen": f.Seen(t.Context(), "x", "1", nil),
	} {
		if !errors.As(err, &unknown) {
			t.Errorf("%s: got %v", what, err)
		}
	}
}

func second(_ Node, err error) error { return err }

// TestForget: a node with an open lease stays. Its name is free afterwards.
func TestForget(t *testing.T) {
	f := newFixture(t)
	f.join(t, "gpu2", Fingerprint{2})
	if _, err := f.db.Exec(`INSERT INTO leases (id, space, identity, declared_ms, held_ms, state, admitted_at, machine) VALUES ('a', 'demo', 'local', 1, 1, 'active', 1, 'gpu2')`); err != nil {
		t.Fatal(err)
	}
	_, err := f.Forget(t.Context(), "gpu2")
	if busy, ok := errors.AsType[*BusyError](err); !ok || busy.Leases != 1 {
		t.Errorf("got %v", err)
	}
	if _, err := f.db.Exec(`UPDATE leases SET ended_at = 2`); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Forget(t.Context(), "gpu2"); err != nil {
		t.Fatal(err)
	}
	f.join(t, "gpu2", Fingerprint{3})
}

// Nodes that connect at the same time are stored together, and each caller gets its own error.
func TestManyAreSeenAtOnce(t *testing.T) {
	f := newFixture(t)
	f.join(t, "gpu2", Fingerprint{1})
	var all sync.WaitGroup
	for n := range 50 {
		all.Go(func() {
			known := n%2 == 0
			name := "gone"
			if known {
				name = "gpu2"
			}
			err := f.Seen(t.Context(), name, fmt.Sprint(n), []string{"h200"})
			if errors.As(err, new(*UnknownError)) == known {
				t.Errorf("%s: %v", name, err)
			}
			if err := f.SeenAt(t.Context(), f.at, "gone", "gpu2"); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n, err := f.Get(t.Context(), "gpu2"); err != nil || !n.SeenAt.Equal(noon) || n.Version == "" || len(n.Labels) != 1 {
		t.Errorf("got %+v (%v)", n, err)
	}
}
