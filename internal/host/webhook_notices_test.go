package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	webhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"go.uber.org/zap"

	"spacehost/gpu"
	"spacehost/internal/identity"
	"spacehost/internal/lease"
	"spacehost/internal/notify"
	"spacehost/internal/space"
	"spacehost/quota"
	"spacehost/worker"
)

const webhookSecret = "whsec_c2VjcmV0IG9mIHR3ZW50eS1mb3VyIGJ5dGVz"

// hookReceiver is an HTTP server that keeps the notices which it has verified, by path.
type hookReceiver struct {
	*httptest.Server
	t    *testing.T
	mu   sync.Mutex
	seen map[string][]string
}

func newHookReceiver(t *testing.T) *hookReceiver {
	t.Helper()
	verifier, err := webhooks.NewWebhook(webhookSecret)
	if err != nil {
		t.Fatal(err)
	}
	r := &hookReceiver{t: t, seen: map[string][]string{}}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		body, _ := io.ReadAll(q.Body)
		line := string(body)
		if q.URL.Path != "/slack" {
			var p struct {
				Type string
				Data struct{ Text string }
			}
			if err := errors.Join(verifier.Verify(body, q.Header), json.Unmarshal(body, &p)); err != nil {
				t.Errorf("%s: %v", body, err)
			}
			line = p.Type + ": " + p.Data.Text
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.seen[q.URL.Path] = append(r.seen[q.URL.Path], line)
	}))
	t.Cleanup(r.Close)
	return r
}

// has reports whether a notice at a path contains all texts.
func (r *hookReceiver) has(path string, texts ...string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.ContainsFunc(r.seen[path], func(line string) bool {
		return !slices.ContainsFunc(texts, func(text string) bool { return !strings.Contains(line, text) })
	})
}

// count returns how many notices at a path contain a text.
func (r *hookReceiver) count(path, text string) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, line := range r.seen[path] {
		if strings.Contains(line, text) {
			n++
		}
	}
	return n
}

// TestNotices causes each event at a running host, and reads the notices at its webhooks.
func TestNotices(t *testing.T) {
	receiver := newHookReceiver(t)
	hooks := fmt.Sprintf("webhooks:\n- {url: '%s/all', secret: %s}\n- {url: '%[1]s/slack', format: slack, events: [gpu.drained]}\n", receiver.URL, webhookSecret)
	r := startReloadHost(t, labOf(hooks, spaceOne))
	awaitNotice := func(path string, texts ...string) {
		t.Helper()
		r.await(fmt.Sprintf("%s receives %q", path, texts), func() bool { return receiver.has(path, texts...) })
	}
	awaitNotice("/all", "space.down: The Space one does not run (")
	one, uuid := r.find("one"), r.pool.Load().Slots()[0].Device.UUID
	one.staged(worker.StageChange{Stage: space.Running})
	awaitNotice("/all", "space.restarted: The Space one has restarted and runs.")
	one.reportUnresponsive("Its thread hangs in app.py:7.")
	one.reportUnresponsive("again")
	awaitNotice("/all", "space.unresponsive: The Space one does not answer. Its thread hangs in app.py:7.")
	one.staged(worker.StageChange{Stage: space.Running}) // it answers again
	one.reportUnresponsive("It hangs once more.")
	awaitNotice("/all", "space.unresponsive: The Space one does not answer. It hangs once more.")
	if n := receiver.count("/all", "space.restarted"); n != 1 {
		t.Errorf("%d notices of a restart, want one: an answer is no restart", n)
	}
	one.staged(worker.StageChange{Stage: space.AppStarting, Reason: "The Space starts again."})
	one.staged(worker.StageChange{Stage: space.Running})
	r.await("the notice of the restart", func() bool { return receiver.count("/all", "space.restarted") == 2 })

	until := time.Now().Add(48 * time.Hour)
	if err := r.broker.Drain(t.Context(), uuid, lease.Drain{Reason: "new <fan>", Until: until}); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("The GPU %s is drained until %s", uuid, until.Format("Jan 2 15:04"))
	awaitNotice("/all", "gpu.drained: "+want, "new <fan>")
	awaitNotice("/slack", want, `(gpu.drained)`, `new \u0026lt;fan\u0026gt;`)
	if err := r.broker.Return(t.Context(), uuid); err != nil {
		t.Fatal(err)
	}
	faulter := r.inventory().(gpu.Faulter)
	fault := func(text string) {
		t.Helper()
		f, err := gpu.ParseFault(text)
		if err == nil {
			err = faulter.Fault(uuid, f)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	fault("xid=79")
	awaitNotice("/all", "gpu.lost: ", "is no longer lent: the driver has reported Xid 79")
	fault("clear")
	fault("lost")
	awaitNotice("/all", "gpu.lost: ", "cannot be read and is not lent: device "+string(uuid)+" is lost to the driver")
	fault("clear")
	foreign := exec.Command("sleep", "600")
	if err := foreign.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = foreign.Process.Kill(); _ = foreign.Wait() })
	fault(fmt.Sprintf("process=%d", foreign.Process.Pid))
	awaitNotice("/all", fmt.Sprintf("gpu.unleased: The process %d, which belongs to no Space, uses the GPU %s without a lease.", foreign.Process.Pid, uuid))

	r.diskWatch().nearlyFull(500 << 20)
	awaitNotice("/all", "disk.low: The disk of the state folder has 500 MiB free.")

	unmark := r.markRunning() // Run has made the marker, which looks like that of a host that has crashed
	awaitNotice("/all", "host.crashed: spacehost has started after a crash: the host that started at 20")
	unmark()
	if _, err := os.Stat(r.state.path(runningMarker)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the marker is still there: %v", err)
	}

	hooks = fmt.Sprintf("webhooks:\n- {url: '%s/later', secret: %s, events: [disk.low]}\npeople:\n- {name: ada, webhook: {url: '%[1]s/ada', secret: %s}}\n", receiver.URL, webhookSecret, webhookSecret)
	r.reload(labOf(hooks, spaceOne))
	r.notices.Send(notify.Notice{Kind: notify.QuotaLow, Person: "ada", Text: "nearly used"})
	r.diskWatch().nearlyFull(400 << 20)
	awaitNotice("/later", "disk.low: ", "400 MiB")
	awaitNotice("/ada", "quota.low: nearly used")
	if receiver.has("/all", "400 MiB") || receiver.has("/later", "quota.low") || receiver.has("/slack", "space.down") || receiver.has("/all", "again") {
		t.Errorf("notices at a wrong webhook: %v", receiver.seen)
	}
	if text, err := os.ReadFile(r.state.path("logs", "spacehost.log")); err != nil || strings.Contains(string(text), receiver.URL) || strings.Contains(string(text), webhookSecret) {
		t.Errorf("the log contains the URL or the secret of a webhook (%v)", err)
	}
}

// TestQuotaNotice: a person is notified once for each window, from nine tenths of the quota on.
func TestQuotaNotice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reset := time.Now().Add(time.Hour)
		balance := quota.Balance{Base: 100 * time.Second, Charged: 89 * time.Second, ResetsAt: &reset}
		var sent []notify.Notice
		w := &quotaWatch{
			balance: func(_ context.Context, id identity.Identity) (quota.Balance, error) {
				if id.Name != "ada" {
					return quota.Balance{}, errors.New("another account was read: " + id.Key())
				}
				return balance, nil
			},
			send: func(n notify.Notice) { sent = append(sent, n) }, log: zap.NewNop(),
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go w.run(ctx)
		ends := func(account string) {
			w.onChange(lease.Change{State: lease.Released, Identity: account, ChargedSeconds: 1})
			time.Sleep(quotaLookInterval)
			synctest.Wait()
		}
		ends("user:ada")
		ends("address:192.0.2.1")
		if len(sent) != 0 {
			t.Errorf("at 89 of 100 s: %+v", sent)
		}
		balance.Charged = 90 * time.Second
		ends("user:ada")
		ends("user:ada")
		if len(sent) != 1 || sent[0].Kind != notify.QuotaLow || sent[0].Person != "ada" || !strings.HasPrefix(sent[0].Text, "ada has used 90 of 100 seconds of GPU time. The quota is full again at ") {
			t.Errorf("at 90 of 100 s: %+v", sent)
		}
		next := reset.Add(24 * time.Hour)
		balance.ResetsAt = &next
		ends("user:ada")
		if len(sent) != 2 {
			t.Errorf("in the next window: %+v", sent)
		}
		balance.Unlimited, balance.ResetsAt = true, new(next.Add(time.Hour))
		ends("user:ada")
		if len(sent) != 2 {
			t.Errorf("with an unlimited tier: %+v", sent)
		}
	})
}
