package link

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestRatesAreForgotten: a node that has used up its connections has to wait, also after another one has come. Once its limit is full again,
// the next new node removes it.
func TestRatesAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Server{rates: map[string]*nodeRates{}}
		turn := func(node string) (waited time.Duration) {
			t.Helper()
			began := time.Now()
			if err := awaitTurn(t.Context(), s.ratesOf(node).conns); err != nil {
				t.Fatal(err)
			}
			return time.Since(began)
		}
		for range connBurst {
			if waited := turn("first"); waited > 0 {
				t.Fatalf("a connection within the burst waits %s", waited)
			}
		}
		turn("second")
		if waited := turn("first"); waited == 0 || len(s.rates) != 2 {
			t.Errorf("a connection beyond the burst waits %s; limits of %d nodes are kept, want 2", waited, len(s.rates))
		}
		if err := awaitTurn(t.Context(), s.ratesOf("first").links); err != nil {
			t.Fatal(err)
		}
		time.Sleep((connBurst/connRate + 1) * time.Second)
		turn("third")
		if s.rates["third"] == nil || len(s.rates) != 1 {
			t.Errorf("limits of %d nodes are kept, want that of the third one", len(s.rates))
		}
	})
}
