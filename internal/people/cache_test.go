package people

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Valid and made-up tokens are distinguished in memory, so a flood of requests does not block the database.
func TestByTokenAvoidsDatabase(t *testing.T) {
	f := newFixture(t)
	f.add("ada")
	text, _ := f.token("ada")
	f.withoutDatabase(func(ctx context.Context) {
		if _, err := f.ByToken(ctx, text); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("first call without a database: got %v", err)
		}
	})
	f.wantPayer(text, "user:ada", "free")
	f.withoutDatabase(func(ctx context.Context) {
		for range 1000 {
			if who, err := f.ByToken(ctx, text); err != nil || who.Key() != "user:ada" {
				t.Fatalf("got %s (%v)", who, err)
			}
			if _, err := f.ByToken(ctx, newToken()); !errors.As(err, new(*UnknownTokenError)) {
				t.Fatalf("made up: got %v", err)
			}
		}
	})
	f.pass(time.Hour)
	f.withoutDatabase(func(ctx context.Context) {
		if who, err := f.ByToken(ctx, text); err != nil || who.Key() != "user:ada" {
			t.Errorf("when its use cannot be written: got %s (%v)", who, err)
		}
	})
}

func TestUseIsRecordedOncePerMinute(t *testing.T) {
	f := newFixture(t)
	f.add("ada")
	text, _ := f.token("ada")
	f.watchUses()
	if f.lastUsed() != (time.Time{}) {
		t.Errorf("before the first use: got %v", f.lastUsed())
	}
	for _, row := range []struct {
		after   time.Duration
		restart bool
		uses    int
		used    time.Time
	}{
		{uses: 1, used: noon},
		{after: 59 * time.Second, uses: 1, used: noon},
		{restart: true, uses: 1, used: noon},
		{after: time.Second, uses: 2, used: noon.Add(time.Minute)},
		{after: -time.Hour, uses: 3, used: noon.Add(-59 * time.Minute)}, // a clock that steps back
		{after: 59 * time.Second, uses: 3, used: noon.Add(-59 * time.Minute)},
		{after: time.Second, restart: true, uses: 4, used: noon.Add(-58 * time.Minute)},
	} {
		f.pass(row.after)
		if row.restart {
			f.open()
		}
		f.wantPayer(text, "user:ada", "free")
		f.wantPayer(text, "user:ada", "free")
		if uses := f.count("SELECT count(*) FROM uses"); uses != row.uses || !f.lastUsed().Equal(row.used) {
			t.Errorf("%+v: got %d recorded uses, last used %v", row, uses, f.lastUsed())
		}
	}
}

func TestConcurrentUsesAreRecordedOnce(t *testing.T) {
	f := newFixture(t)
	f.add("ada")
	text, _ := f.token("ada")
	f.watchUses()
	for minute := range 3 {
		inParallel(func(i int) {
			if i == parallelism/2 { // the cache is reset in the middle of the requests
				f.bearers.reset()
			}
			f.wantPayer(text, "user:ada", "free")
		})
		if got := f.count("SELECT count(*) FROM uses"); got != minute+1 {
			t.Errorf("minute %d: got %d recorded uses in all", minute, got)
		}
		f.pass(time.Minute)
	}
}

// A read of the tokens during a revocation must not make the revoked token valid again.
func TestRevokedTokenStaysRevoked(t *testing.T) {
	f := newFixture(t)
	f.add("ada", "ben")
	bens, _ := f.token("ben")
	for range 10 {
		text, token := f.token("ada")
		f.wantPayer(text, "user:ada", "free")
		var revoked atomic.Bool
		var all sync.WaitGroup
		for range 3 { // more would leave Revoke no processor
			all.Go(func() {
				for late := false; !late; {
					late = revoked.Load()
					if who, err := f.ByToken(t.Context(), text); late && err == nil || err != nil && !errors.As(err, new(*UnknownTokenError)) {
						t.Errorf("revoked: %v, got %s (%v)", late, who, err)
					}
				}
				f.wantPayer(bens, "user:ben", "free")
			})
		}
		if _, _, err := f.Revoke(t.Context(), token.ID); err != nil {
			t.Errorf("Revoke: %v", err)
		}
		revoked.Store(true)
		all.Wait()
	}
}

// A read that began before a change was committed may end after it.
func TestResetWaitsForRunningRead(t *testing.T) {
	var b cache[map[digest]*bearer]
	reading, goOn, reset := make(chan struct{}), make(chan struct{}), make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		_, err := b.get(t.Context(), func(context.Context) (map[digest]*bearer, error) {
			close(reading)
			<-goOn
			return map[digest]*bearer{}, nil
		})
		if err != nil {
			t.Errorf("get: %v", err)
		}
	})
	<-reading
	all.Go(func() {
		b.reset()
		close(reset)
	})
	select {
	case <-reset:
		t.Error("reset returned before the running read was stored")
	case <-time.After(20 * time.Millisecond):
	}
	close(goOn)
	all.Wait()
	if b.known.Load() != nil {
		t.Error("the result read before the change is still cached")
	}
}

// Each of the two guards is sufficient: the claim in memory, and the condition in SQL after the cache was reset.
func TestUseIsClaimedAndWrittenOnce(t *testing.T) {
	var b bearer
	var claimed atomic.Int32
	inParallel(func(int) {
		if b.claimUse(noon) {
			claimed.Add(1)
		}
	})
	if claimed.Load() != 1 {
		t.Errorf("claimed %d times, want once", claimed.Load())
	}
	f := newFixture(t)
	f.add("ada")
	_, token := f.token("ada")
	f.watchUses()
	for range 3 {
		if err := f.recordUse(t.Context(), token.ID, noon); err != nil {
			t.Fatal(err)
		}
	}
	if got := f.count("SELECT count(*) FROM uses"); got != 1 {
		t.Errorf("got %d recorded uses, want 1", got)
	}
}

func TestConcurrentTokenCreation(t *testing.T) {
	f := newFixture(t)
	f.add("ada")
	f.watchUses()
	var texts, ids sync.Map
	inParallel(func(i int) {
		text, token, err := f.CreateToken(t.Context(), "ada", "", FullRights())
		if err != nil {
			t.Errorf("CreateToken: %v", err)
			return
		}
		texts.Store(text, true)
		ids.Store(token.ID, true)
		f.wantPayer(text, "user:ada", "free")
		if i%2 == 0 {
			if _, _, err := f.Revoke(t.Context(), token.ID); err != nil {
				t.Errorf("Revoke: %v", err)
			}
			f.wantUnknown("revoked", text)
		}
	})
	for _, set := range []*sync.Map{&texts, &ids} {
		n := 0
		set.Range(func(any, any) bool { n++; return true })
		if n != parallelism {
			t.Errorf("got %d different values, want %d", n, parallelism)
		}
	}
	if got := f.count("SELECT count(*) FROM tokens WHERE revoked_at IS NULL"); got != parallelism/2 {
		t.Errorf("valid tokens: got %d, want %d", got, parallelism/2)
	}
	if got := f.count("SELECT count(*) FROM uses"); got != parallelism {
		t.Errorf("recorded uses, one per token: got %d, want %d", got, parallelism)
	}
}
