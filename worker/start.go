package worker

import (
	"context"
	"encoding/hex"
	"fmt"
	"maps"
	"path/filepath"
	"time"

	"go.uber.org/zap"

	"spacehost/internal/space"
)

// start makes the standby the current start, or starts a process.
func (s *Supervisor) start() (*Process, error) {
	if p := s.takeStandby(); p != nil {
		return p, nil
	}
	p, _, err := s.open(false)
	if err != nil && p != nil {
		p.End(context.Background(), endGrace)
		return nil, s.ended(p, space.RuntimeFailed, err.Error(), "")
	}
	if err != nil {
		return nil, s.failed(err)
	}
	return p, nil
}

// open starts a process. Unless it is a standby, it becomes the current start. An error after the start of the process comes
// with the process, which the caller ends.
func (s *Supervisor) open(isStandby bool) (*Process, *standby, error) {
	if err := s.permit(); err != nil {
		return nil, nil, err
	}
	began := time.Now()
	instance := hex.EncodeToString(random(6))
	port, err := freePort()
	if err != nil {
		return nil, nil, err
	}
	url, device := s.config.Device(instance)
	secrets := map[string]string{"SPACES_ZERO_DEVICE_API_URL": url}
	maps.Copy(secrets, s.config.Secrets)
	key := hex.EncodeToString(random(16))
	runDir := filepath.Join(s.config.RunDir, instance)
	info := StartInfo{Instance: instance, RunDir: runDir, Runner: s.runnerDir, Python: s.python, Port: port, Device: device, Slot: s.freeSlot()}
	var confinement Confinement
	if s.config.Confine != nil {
		if confinement, err = s.config.Confine(info); err != nil {
			s.config.Ended(instance)
			return nil, nil, err
		}
	}
	comparison := s.repeats.begin()
	failures := newFailures(func(f Failure) {
		comparison.add(streamFailures, fmt.Sprint(f), func() { s.showFailure(f) })
	})
	waiting := &standby{
		session: &session{supervisor: s, instance: instance, began: began, failures: failures, comparison: comparison}, key: key, slot: info.Slot,
	}
	config := ProcessConfig{
		Space: s.config.Space, Dir: s.config.Dir, AppFile: s.config.AppFile, Python: s.python,
		Runner: s.runnerDir, RunDir: runDir, Env: s.env,
		Secrets: secrets, Port: port, Key: key, Public: s.config.PublicURL, Device: device, Simulated: s.config.Simulated, Strict: s.config.Strict, Storage: s.config.Storage, Standby: isStandby,
		Output: s.config.Output, OutputRate: s.config.OutputRate, Logger: s.config.Logger, cgroups: s.config.Processes.Cgroups(), isHosts: s.config.IsHostPort, Limits: s.config.Limits,
		Confinement: confinement, Observe: s.observeOrder(), failures: failures, comparison: comparison,
	}
	var p *Process
	if isStandby {
		waiting.held.show = s.config.Output
		config.Output, config.Reporter = waiting.held.print, waiting.session
		p, err = Start(config)
	} else {
		p, err = s.launch(waiting, config)
	}
	if err != nil {
		s.config.Ended(instance)
		return nil, nil, err
	}
	waiting.process = p
	if isStandby {
		s.config.Processes.RegisterStandby(s.config.Space, p.tree)
	} else {
		s.config.Processes.Register(s.config.Space, p.tree)
	}
	s.config.Logger.Info("space started", zap.String("instance", instance), zap.Int("pid", p.PID), zap.Bool("standby", isStandby), zap.Duration("took", time.Since(began)))
	err = s.config.Started(StartedProcess{Instance: instance, Marker: p.tree.Marker, PID: p.PID, Start: p.tree.Root.Start})
	return p, waiting, err
}

// launch makes a start the current one. It holds the lock, so that the first Job, which the first report can
// trigger, finds the start.
func (s *Supervisor) launch(w *standby, config ProcessConfig) (*Process, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	config.Reporter = w.session
	p, err := Start(config)
	if err != nil {
		return nil, err
	}
	w.process = p
	s.makeCurrent(w)
	return p, nil
}

// makeCurrent is called with the lock held.
func (s *Supervisor) makeCurrent(w *standby) {
	s.stage, s.reason, s.current, s.session, s.key, s.slot = space.AppStarting, "", w.process, w.session, w.key, w.slot
}
