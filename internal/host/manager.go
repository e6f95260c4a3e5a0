package host

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"go.uber.org/zap"

	"spacehost/internal/space"
)

// manager reports to the service manager that has started this host (systemd, `Type=notify`, sd_notify(3)). Without one,
// its messages go nowhere.
type manager struct {
	notify func(state string)
	// watchdog is the time after which the manager restarts a host without a sign of life (WatchdogSec); 0: it does not.
	watchdog time.Duration
	alive    func(ctx context.Context) error
	status   func() string
	log      *zap.Logger
}

func (h *Host) manager() manager {
	log := h.log.Named("manager")
	watchdog, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("watchdog of the service manager not used", zap.Error(err))
	}
	return manager{notify: h.notifyManager, watchdog: watchdog, alive: h.answers, status: h.statusLine, log: log}
}

func (h *Host) notifyManager(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		h.log.Named("manager").Warn("service manager not notified", zap.Error(err))
	}
}

// NotifyReady reports to the service manager that this process, which is no host, is ready (`Type=notify`). Without a service
// manager it does nothing. Errors: those of the manager's socket.
func NotifyReady() error {
	_, err := daemon.SdNotify(false, daemon.SdNotifyReady)
	return err
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
		if now := m.status(); now != status {
			status = now
			m.notify("STATUS=" + status)
		}
		if m.watchdog > 0 {
			m.signOfLife(ctx, interval)
		}
	}
}

func (m manager) signOfLife(ctx context.Context, within time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	if err := m.alive(ctx); err != nil {
		m.log.Warn("no sign of life", zap.Error(err))
		return
	}
	m.notify(daemon.SdNotifyWatchdog)
}

// ownClient connects to this host itself, never through the operator's proxy (HTTP_PROXY), which may not reach it.
var ownClient = http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

// answers checks that the server and the leases of this host still make progress. It does not check the Spaces, which are
// restarted by themselves, nor the GPUs.
func (h *Host) answers(ctx context.Context) error {
	lending := make(chan struct{})
	go func() { h.broker.List(); close(lending) }()
	select {
	case <-lending:
	case <-ctx.Done():
		return fmt.Errorf("leases: %w", ctx.Err())
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
