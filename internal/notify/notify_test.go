package notify

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	webhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	secret     = "whsec_c2VjcmV0IG9mIHR3ZW50eS1mb3VyIGJ5dGVz" // "secret of twenty-four bytes"
	privateURL = "https://hooks.lab.example/services/T0/PRIVATE"
)

// attempt is one request of a hook.
type attempt struct {
	header http.Header
	body   string
	at     time.Duration // since the start of the test
}

// receiver is a transport that answers each attempt with the next of answers; "" is a network error. The last one is repeated.
type receiver struct {
	mu       sync.Mutex
	began    time.Time
	answers  []int
	wait     string // Retry-After
	attempts []attempt
	block    chan struct{} // attempts wait for it, unless it is nil
}

func (r *receiver) RoundTrip(q *http.Request) (*http.Response, error) {
	body, _ := io.ReadAll(q.Body)
	r.mu.Lock()
	r.attempts = append(r.attempts, attempt{q.Header.Clone(), string(body), time.Since(r.began)})
	status := r.answers[min(len(r.attempts), len(r.answers))-1]
	block := r.block
	r.mu.Unlock()
	if block != nil {
		select {
		case <-block:
		case <-q.Context().Done():
			return nil, q.Context().Err()
		}
	}
	if status == 0 {
		return nil, errors.New("connection refused")
	}
	w := httptest.NewRecorder()
	if r.wait != "" {
		w.Header().Set("Retry-After", r.wait)
	}
	w.WriteHeader(status)
	return w.Result(), nil
}

func (r *receiver) all() []attempt {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.attempts)
}

// sender returns a Sender with one hook, the outcomes by result, and the log.
func sender(r *receiver, hook Hook) (*Sender, map[Result]int, *observer.ObservedLogs) {
	core, logs := observer.New(zap.InfoLevel)
	outcomes, mu := map[Result]int{}, sync.Mutex{}
	r.began = time.Now()
	s := New(Config{Host: "gpu7", Transport: r, Logger: zap.New(core), Ended: func(_ string, result Result) {
		mu.Lock()
		defer mu.Unlock()
		outcomes[result]++
	}})
	hook.Name, hook.URL = "hooks.lab.example", privateURL
	s.Configure([]Hook{hook})
	return s, outcomes, logs
}

// TestRetries: failed attempts are repeated with growing pauses and new signatures, and the id stays.
func TestRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &receiver{answers: []int{0, 500, 408, 200}}
		s, outcomes, _ := sender(r, Hook{Secret: secret})
		s.Send(Notice{Kind: SpaceDown, Text: "demo is down", Space: "demo"})
		time.Sleep(time.Hour)
		synctest.Wait()
		verifier, err := webhooks.NewWebhook(secret)
		if err != nil {
			t.Fatal(err)
		}
		var at []time.Duration
		seen := map[string]bool{}
		for _, a := range r.all() {
			at = append(at, a.at)
			seen[a.header.Get("webhook-signature")] = true
			if err := verifier.VerifyIgnoringTimestamp([]byte(a.body), a.header); err != nil || a.header.Get("webhook-id") != r.all()[0].header.Get("webhook-id") {
				t.Errorf("attempt at %v: %v, %v", a.at, err, a.header)
			}
			if sent, _ := strconv.ParseInt(a.header.Get("webhook-timestamp"), 10, 64); sent != r.began.Add(a.at).Unix() {
				t.Errorf("attempt at %v has the timestamp %d", a.at, sent)
			}
		}
		if !slices.Equal(at, []time.Duration{0, 2 * time.Second, 6 * time.Second, 14 * time.Second}) || len(seen) != 4 {
			t.Errorf("attempts at %v with %d signatures", at, len(seen))
		}
		if outcomes[Delivered] != 1 || len(outcomes) != 1 {
			t.Errorf("outcomes %v", outcomes)
		}
		s.Close()
	})
}

// TestFinalAnswers: some answers are not retried, and a delivery ends at last. Neither log nor error contains the URL.
func TestFinalAnswers(t *testing.T) {
	for name, row := range map[string]struct {
		answers  []int
		wait     string
		attempts int
		reason   string
	}{
		"gone":            {[]int{410}, "", 1, "it answers 410 Gone"},
		"redirect":        {[]int{302}, "", 1, "it answers 302 Found"},
		"always 503":      {[]int{503}, "", attempts, "it answers 503 Service Unavailable"},
		"no network":      {[]int{0}, "", attempts, "connection refused"},
		"a pause of 45 m": {[]int{429}, "2700", 1, "context deadline exceeded"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &receiver{answers: row.answers, wait: row.wait}
				s, outcomes, logs := sender(r, Hook{})
				s.Send(Notice{Kind: DiskLow, Text: "full"})
				time.Sleep(2 * retryTime)
				synctest.Wait()
				if n := len(r.all()); n != row.attempts || outcomes[Failed] != 1 {
					t.Errorf("%d attempts, outcomes %v", n, outcomes)
				}
				all := logs.All()
				if len(all) != 1 || all[0].ContextMap()["reason"] != row.reason || strings.Contains(all[0].Message, "PRIVATE") {
					t.Errorf("log: %+v", all)
				}
				tried := s.Try(t.Context(), Notice{Kind: Test, Text: "test"})
				if len(tried) != 1 || tried[0].Error == nil || strings.Contains(tried[0].Error.Error(), "PRIVATE") {
					t.Errorf("try: %+v", tried)
				}
				s.Close()
			})
		})
	}
}

// TestFullQueueDropsOldest: Send does not block while a receiver hangs.
func TestFullQueueDropsOldest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &receiver{answers: []int{200}, block: make(chan struct{})}
		s, outcomes, _ := sender(r, Hook{Format: Slack})
		s.Send(Notice{Kind: SpaceDown, Text: "first"})
		synctest.Wait() // it is being delivered
		for i := range queueLength + 2 {
			s.Send(Notice{Kind: SpaceDown, Text: strconv.Itoa(i)})
		}
		if outcomes[Dropped] != 2 {
			t.Errorf("outcomes %v, want 2 dropped", outcomes)
		}
		close(r.block)
		synctest.Wait()
		all := r.all()
		if len(all) != queueLength+1 || all[1].body != `{"text":"gpu7 (space.down): 2"}` || all[queueLength].body != `{"text":"gpu7 (space.down): 257"}` {
			t.Errorf("%d attempts, the second is %s", len(all), all[1].body)
		}
		s.Close()
	})
}

// TestClose: what waits gets one more attempt, and Close is bounded.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &receiver{answers: []int{500, 200}}
		s, outcomes, _ := sender(r, Hook{})
		s.Send(Notice{Kind: SpaceDown, Text: "interrupted during a pause"})
		s.Send(Notice{Kind: SpaceDown, Text: "waits"})
		synctest.Wait()
		s.Close()
		s.Close()
		if len(r.all()) != 3 || outcomes[Delivered] != 2 {
			t.Errorf("%d attempts, outcomes %v", len(r.all()), outcomes)
		}
		s.Send(Notice{Kind: SpaceDown})
		if len(r.all()) != 3 {
			t.Error("a notice was sent after Close")
		}

		r = &receiver{answers: []int{200}, block: make(chan struct{})}
		s, outcomes, _ = sender(r, Hook{})
		for range 5 {
			s.Send(Notice{Kind: SpaceDown})
		}
		began := time.Now()
		s.Close()
		if took := time.Since(began); took != closeTime || outcomes[Failed]+outcomes[Dropped] != 5 {
			t.Errorf("Close took %v, outcomes %v", took, outcomes)
		}

		r = &receiver{answers: []int{200}, block: make(chan struct{})} // a dead receiver: attempts end by their timeout
		s, outcomes, _ = sender(r, Hook{})
		for range 5 {
			s.Send(Notice{Kind: SpaceDown})
		}
		time.Sleep(attemptTimeout + time.Second)
		began = time.Now()
		s.Close()
		if took := time.Since(began); took != brokenTime || outcomes[Failed]+outcomes[Dropped] != 5 {
			t.Errorf("Close with a dead receiver took %v, outcomes %v", took, outcomes)
		}
	})
}

// TestConfigure: hooks select kinds and people, an unchanged one keeps its queue, and a removed one drops it.
func TestConfigure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &receiver{answers: []int{500}}
		s, outcomes, _ := sender(r, Hook{})
		kept := Hook{Name: "kept", URL: privateURL, Kinds: []Kind{GPULost}}
		ada := Hook{Name: "ada", URL: privateURL, Person: "ada"}
		s.Configure([]Hook{kept, ada})
		s.Send(Notice{Kind: GPULost, Text: "lost"})
		s.Send(Notice{Kind: DiskLow, Text: "nobody wants it"})
		s.Send(Notice{Kind: QuotaLow, Person: "ben", Text: "of another person"})
		s.Send(Notice{Kind: QuotaLow, Person: "ada", Text: "for ada"})
		synctest.Wait()
		s.Configure([]Hook{ada, kept})
		time.Sleep(2 * time.Second)
		synctest.Wait()
		var bodies []string
		for _, a := range r.all() {
			var p payload
			if err := json.Unmarshal([]byte(a.body), &p); err != nil {
				t.Fatal(err)
			}
			bodies = append(bodies, p.Data.Text)
		}
		slices.Sort(bodies)
		if !slices.Equal(bodies, []string{"for ada", "for ada", "lost", "lost"}) { // each with its second attempt
			t.Errorf("attempts: %q", bodies)
		}
		s.Configure(nil)
		synctest.Wait()
		if outcomes[Failed] != 2 {
			t.Errorf("outcomes %v", outcomes)
		}
		s.Close()
	})
}

// TestRealServer posts over HTTP, and verifies the request as a receiver with the library of Standard Webhooks does.
func TestRealServer(t *testing.T) {
	got := make(chan attempt, 1)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, q *http.Request) {
		body, _ := io.ReadAll(q.Body)
		got <- attempt{header: q.Header, body: string(body)}
	}))
	defer server.Close()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	s := New(Config{Host: "gpu7", Transport: transport})
	defer s.Close()
	s.Configure([]Hook{{Name: "local", URL: server.URL + "/x", Secret: secret}})
	s.Send(Notice{Kind: GPULost, Text: "GPU-1 is lost.", GPU: "GPU-1"})
	a := <-got
	verifier, err := webhooks.NewWebhook(secret)
	if err != nil {
		t.Fatal(err)
	}
	if err := verifier.Verify([]byte(a.body), a.header); err != nil || a.header.Get("Content-Type") != "application/json" {
		t.Errorf("%v: %v", err, a.header)
	}
	var p payload
	if err := json.Unmarshal([]byte(a.body), &p); err != nil || p.Type != GPULost || p.Data != (data{Text: "GPU-1 is lost.", Host: "gpu7", GPU: "GPU-1"}) || time.Since(p.Timestamp) > time.Minute {
		t.Errorf("%v: %s", err, a.body)
	}
	if err := verifier.Verify([]byte(a.body+" "), a.header); err == nil {
		t.Error("a changed body is accepted")
	}
}

func TestSlackEscapes(t *testing.T) {
	body, err := Notice{Kind: SpaceDown, Text: "<!channel> & <https://evil|here>"}.body(Slack, "gpu7")
	if want := `{"text":"gpu7 (space.down): \u0026lt;!channel\u0026gt; \u0026amp; \u0026lt;https://evil|here\u0026gt;"}`; err != nil || string(body) != want {
		t.Errorf("%v: %s, want %s", err, body, want)
	}
}

func TestChecks(t *testing.T) {
	for text, good := range map[string]bool{secret: true, strings.TrimPrefix(secret, "whsec_"): true, "whsec_c2hvcnQ=": false, "a password": false, "": false} {
		if err := CheckSecret(text); (err == nil) != good || err != nil && text != "" && strings.Contains(err.Error(), text) {
			t.Errorf("secret %q: %v", text, err)
		}
	}
	for text, good := range map[string]bool{privateURL: true, "http://10.0.0.1:9000": true, "ftp://x/": false, "hooks.lab.example": false, "/x": false} {
		if err := CheckURL(text); (err == nil) != good {
			t.Errorf("URL %q: %v", text, err)
		}
	}
}
