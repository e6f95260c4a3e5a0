package link_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"spacehost/internal/link"
	"spacehost/internal/link/linktest"
)

// record keeps what Suspect reports, with the time since its start.
type record struct {
	mu    sync.Mutex
	begun time.Time
	got   []string
}

func (r *record) handler() linktest.Handler {
	h := echo
	h.OnSuspect = func(_ *link.Link, suspect bool) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.got = append(r.got, fmt.Sprintf("%v after %s", suspect, time.Since(r.begun).Round(time.Second)))
	}
	return h
}

func (r *record) expect(t *testing.T, what string, want ...string) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Equal(r.got, want) {
		t.Errorf("%s: got %q, want %q", what, r.got, want)
	}
}

// pulsePair returns a link that has just had a beat of both ends, and the records of both.
func pulsePair(t *testing.T) (ends *linktest.Ends, front, agent *record) {
	front, agent = &record{}, &record{}
	ends = linktest.Pair(t, front.handler(), agent.handler())
	time.Sleep(10 * time.Second)
	synctest.Wait()
	for _, r := range []*record{front, agent} {
		r.mu.Lock()
		r.begun = time.Now()
		r.mu.Unlock()
	}
	return ends, front, agent
}

func TestQuietLinkStaysAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ends, front, agent := pulsePair(t)
		time.Sleep(10 * time.Minute)
		front.expect(t, "front")
		agent.expect(t, "agent")
		for _, l := range []*link.Link{ends.Front, ends.Agent} {
			if since := time.Since(l.Beat()); l.Err() != nil || since > time.Second {
				t.Errorf("the last beat is %s old, error %v", since, l.Err())
			}
		}
	})
}

func TestShortCutIsSuspectOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ends, front, agent := pulsePair(t)
		ends.Proxy.Partition()
		told := make(chan error, 1)
		go func() { told <- ends.Front.Call(t.Context(), "echo", number{1}, nil) }()
		time.Sleep(14 * time.Second)
		ends.Proxy.Heal()
		synctest.Wait()
		front.expect(t, "front", "true after 3s", "false after 14s")
		agent.expect(t, "agent", "true after 3s", "false after 14s")
		if err := <-told; err != nil { // TCP has kept it
			t.Errorf("the call in the cut: %v", err)
		}
		time.Sleep(time.Minute)
		if ends.Front.Err() != nil || ends.Agent.Err() != nil {
			t.Errorf("down: %v, %v", ends.Front.Err(), ends.Agent.Err())
		}
	})
}

func TestLongCutIsLostAtBothEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ends, front, agent := pulsePair(t)
		stream, err := ends.Agent.Open(t.Context(), "s")
		if err != nil {
			t.Fatal(err)
		}
		ends.Proxy.Partition()
		last := time.Now()
		time.Sleep(15*time.Second - time.Millisecond)
		if ends.Front.Err() != nil || ends.Agent.Err() != nil {
			t.Errorf("down too early: %v, %v", ends.Front.Err(), ends.Agent.Err())
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		for _, l := range []*link.Link{ends.Front, ends.Agent} {
			if !errors.Is(l.Err(), link.ErrLost) || !l.Beat().Equal(last) {
				t.Errorf("cause %v, last beat %s before the cut", l.Err(), last.Sub(l.Beat()))
			}
		}
		if _, err := stream.Read(make([]byte, 100)); err == nil {
			_, err = stream.Read(make([]byte, 100))
			if err == nil {
				t.Error("the stream can be read although the link is lost")
			}
		}
		front.expect(t, "front", "true after 3s")
		agent.expect(t, "agent", "true after 3s")
	})
}

// One deaf direction is enough: the end that gets nothing closes the link for both.
func TestDeafDirections(t *testing.T) {
	for _, d := range []linktest.Direction{linktest.ToFront, linktest.ToAgent} {
		synctest.Test(t, func(t *testing.T) {
			ends, front, agent := pulsePair(t)
			ends.Proxy.Deafen(d)
			time.Sleep(15 * time.Second)
			synctest.Wait()
			deaf, other := ends.Front, ends.Agent
			if d == linktest.ToAgent {
				deaf, other = other, deaf
				front, agent = agent, front
			}
			front.expect(t, "deaf end", "true after 3s")
			agent.expect(t, "other end")
			var e *link.RemoteError
			if !errors.Is(deaf.Err(), link.ErrLost) || !errors.As(other.Err(), &e) || e.Code != link.CodeLost {
				t.Errorf("direction %d: causes %v and %v", d, deaf.Err(), other.Err())
			}
		})
	}
}

// The agent's side ends without a sign to the front, as at a power cut. The agent's next link replaces the earlier one at once.
func TestHalfOpenLinkIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ends, _, _ := pulsePair(t)
		ends.Proxy.HalfOpen()
		synctest.Wait()
		if ends.Agent.Err() == nil || ends.Front.Err() != nil {
			t.Errorf("half open: %v, %v", ends.Front.Err(), ends.Agent.Err())
		}
		l, _, err := ends.Dialer.Dial(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		synctest.Wait()
		if !errors.Is(ends.Front.Err(), link.ErrReplaced) || ends.Server.Link(linktest.Node) == ends.Front || l.Err() != nil {
			t.Errorf("causes %v, %v", ends.Front.Err(), l.Err())
		}
		time.Sleep(time.Minute)
		if l.Err() != nil || ends.Server.Link(linktest.Node) == nil {
			t.Errorf("the new link: %v", l.Err())
		}
	})
}

func TestRoundTripIsMeasured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ends, _, _ := pulsePair(t)
		if ends.Front.RTT() != 0 || ends.Agent.RTT() != 0 {
			t.Errorf("without delay: %s, %s", ends.Front.RTT(), ends.Agent.RTT())
		}
		ends.Proxy.SetDelay(70 * time.Millisecond)
		time.Sleep(10 * time.Second)
		if ends.Front.RTT() != 140*time.Millisecond || ends.Agent.RTT() != 140*time.Millisecond {
			t.Errorf("got %s, %s, want 140ms", ends.Front.RTT(), ends.Agent.RTT())
		}
	})
}

// A slow network delays bytes, and the link stays alive while an upload fills it.
func TestSlowNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ends, front, agent := pulsePair(t)
		ends.Proxy.SetRate(1 << 20)
		ends.Proxy.SetDelay(20 * time.Millisecond)
		stream, err := ends.Front.Open(t.Context(), "s")
		if err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		go stream.Write(make([]byte, 20<<20))
		if n, err := io.CopyN(io.Discard, stream, 20<<20); err != nil {
			t.Fatalf("%d bytes, %v", n, err)
		}
		if took := time.Since(begun); took < 19*time.Second || took > 25*time.Second {
			t.Errorf("20 MB at 1 MB/s took %s", took)
		}
		front.expect(t, "front")
		agent.expect(t, "agent")
	})
}

func TestDropAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ends, _, _ := pulsePair(t)
		ends.Proxy.DropAfter(2000)
		for ends.Agent.Err() == nil {
			if err := ends.Agent.Call(t.Context(), "echo", number{1}, nil); err != nil && !errors.Is(err, link.ErrDown) {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if _, _, err := ends.Dialer.Dial(t.Context(), nil); err == nil || ends.Front.Err() == nil {
			t.Errorf("the network is not cut: %v, %v", err, ends.Front.Err())
		}
		ends.Proxy.Heal()
		l, _, err := ends.Dialer.Dial(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
	})
}

// A handler that blocks delays messages, and not the beats of its end.
func TestBlockedHandlerStillBeats(t *testing.T) {
	free := make(chan struct{})
	synctest.Test(t, func(t *testing.T) {
		free = make(chan struct{})
		h := linktest.Handler{OnTell: func(*link.Link, string, json.RawMessage) { <-free }}
		r := &record{}
		ends := linktest.Pair(t, r.handler(), h)
		for range 10 {
			ends.Front.Tell("block", nil)
		}
		time.Sleep(time.Minute)
		r.expect(t, "front")
		if ends.Agent.Err() != nil {
			t.Errorf("down: %v", ends.Agent.Err())
		}
		close(free)
	})
}
