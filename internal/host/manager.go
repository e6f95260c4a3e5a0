package host

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"go.uber.org/zap"

	"spacehost/internal/space"
)

// manager reports to the service manager that has started this program (systemd, `Type=notify`, sd_notify(3)). Without one,
// its messages go nowhere.
type manager struct {
	notify func(state string)
	// watchdog is the time after which the manager restarts a program without a sign of life (WatchdogSec); 0: it does not.
	watchdog time.Duration
	alive    func(ctx context.Context) error
	status   func() string
	log      *zap.Logger
}

func (h *Host) manager() manager { return newManager(h.log, h.answers, h.statusLine) }

func (h *Host) notifyManager(state string) { notifyManager(h.log.Named("manager"), state) }

func newManager(log *zap.Logger, alive func(context.Context) error, status func() string) manager {
	log = log.Named("manager")
	watchdog, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("watchdog of the service manager not used", zap.Error(err))
	}
	return manager{notify: func(state string) { notifyManager(log, state) }, watchdog: watchdog, alive: alive, status: status, log: log}
}

func notifyManager(log *zap.Logger, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		log.Warn("service manager not notified", zap.Error(err))
	}
}

// ReportAgent reports to the service manager that has started this process, an agent: that it is ready (`Type=notify`), what runs, and
// signs of life (`WatchdogSec`) as long as running returns in time. running counts the processes of Spaces and the GPU calls; it must
// need the locks of what ends workers that overstay. ReportAgent returns when ctx ends. Without a service manager it returns at once.
func ReportAgent(ctx context.Context, log *zap.Logger, running func() (processes, leases int)) {
	if os.Getenv("NOTIFY_SOCKET") == "" {
		return
	}
	a := agentVitals{running: running}
	newManager(log, a.alive, a.statusLine).run(ctx)
}

// agentVitals keeps what an agent runs, for the status line.
type agentVitals struct {
	running           func() (processes, leases int)
	mu                sync.Mutex
	processes, leases int // of the latest answer
}

func (a *agentVitals) alive(ctx context.Context) error {
	return within(ctx, "processes and GPU calls", func() {
		processes, leases := a.running()
		a.mu.Lock()
		defer a.mu.Unlock()
		a.processes, a.leases = processes, leases
	})
}

func (a *agentVitals) statusLine() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return fmt.Sprintf("Processes of Spaces: %d; GPU calls: %d", a.processes, a.leases)
}

// within returns an error if do has not returned when ctx ends.
func within(ctx context.Context, what string, do func()) error {
	done := make(chan struct{})
	go func() { do(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", what, ctx.Err())
	}
}

// statusInterval is the interval of the status line without a watchdog.
const statusInterval = 10 * time.Second

// run reports readiness at once, for the addresses listen already: environments are built after it, which can take minutes.
// Then it reports the state of the Spaces, and signs of life, until ctx ends.
func (m manager) run(ctx context.Context) {
	status := m.status()
	m.notify(daemon.SdNotifyReady + "\nSTATUS=" + status)
	interval := statusInterval
	if m.watchdog > 0 {
		interval = m.watchdog / 3 // two of three may fail
	}
	again := time.NewTicker(interval)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			m.notify(daemon.SdNotifyStopping)
			return
		case <-again.C:
		}
		alive := m.isAlive(ctx, interval)
		if now := m.status(); now != status {
			status = now
			m.notify("STATUS=" + status)
		}
		if alive && m.watchdog > 0 {
			m.notify(daemon.SdNotifyWatchdog)
		}
	}
}

func (m manager) isAlive(ctx context.Context, within time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	err := m.alive(ctx)
	if err != nil {
		m.log.Warn("no sign of life", zap.Error(err))
	}
	return err == nil
}

// ownClient connects to this host itself, never through the operator's proxy (HTTP_PROXY), which may not reach it.
var ownClient = http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

// answers checks that the server and the leases of this host still make progress. It does not check the Spaces, which are
// restarted by themselves, nor the GPUs.
func (h *Host) answers(ctx context.Context) error {
	if err := within(ctx, "leases", func() { h.broker.List() }); err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+dialAddr(h.console)+"/healthz", nil)
	if err != nil {
		return err
	}
	answer, err := ownClient.Do(request)
	if err != nil {
		return err
	}
	answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("GET /healthz: %s", answer.Status)
	}
	return nil
}

// statusLine is what `systemctl status` shows.
func (h *Host) statusLine() string {
	running := 0
	for _, s := range h.all() {
		if s.supervisor.Status().Stage == space.Running {
			running++
		}
	}
	return fmt.Sprintf("Spaces: %d of %d running", running, len(h.all()))
}
