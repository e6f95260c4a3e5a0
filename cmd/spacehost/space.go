package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"

	"go.uber.org/zap"

	"spacehost/gradioapi"
	"spacehost/internal/build"
	"spacehost/internal/console"
	"spacehost/internal/deviceapi"
	"spacehost/internal/identity"
	"spacehost/internal/lease"
	"spacehost/internal/space"
	"spacehost/queue"
	"spacehost/server"
	"spacehost/worker"
)

// spaceRun is one Space under a Host: its address, its environment, its process, its queue.
type spaceRun struct {
	host       *Host
	space      *space.Space
	site       server.Site // its own address: its JavaScript is hostile to the console and to other Spaces
	supervisor *worker.Supervisor
	queue      *queue.Queue
	env        *build.Environment
}

func (s *spaceRun) url() string { return "http://" + visitable(s.site) }

func (s *spaceRun) wire() {
	h := s.host
	s.supervisor = worker.NewSupervisor(worker.SupervisorConfig{
		Space: s.space.Name, Dir: s.space.Dir, AppFile: s.space.AppFile, PublicURL: s.url(),
		RunDir: h.state.path("run"), Secrets: h.options.secretMap(), Processes: h.processes,
		StartupTimeout: s.space.StartupTimeout, Device: s.openDoor, Started: s.started, Ended: s.ended,
		Unknown: s.unknown, Account: s.account, Output: func(line string) { h.screen.space(s.space.Name, line) },
		Logger: h.log.Named("worker").With(zap.String("space", s.space.Name)),
	})
	s.queue = queue.New(queue.Config{
		Runner: s.supervisor, Payments: payments{h.broker}, Sign: s.sign,
		Logger: h.log.Named("queue").With(zap.String("space", s.space.Name)),
	})
	s.supervisor.SetQueue(s.queue)
}

// register says what is answered at the Space's address.
func (s *spaceRun) register() {
	gradioapi.New(gradioapi.Config{
		Space: s.space.Name, Queue: s.queue, Upstream: s.supervisor,
		Identify: s.identify, Sign: s.sign, BySpace: s.host.options.admission == "space", Logger: s.host.log.Named("gradioapi"),
	}).Register(s.site.Echo)
}

// payments tells the broker what becomes of visitors, in its own words for an Event.
type payments struct{ broker *lease.Broker }

func (p payments) Left(event queue.EventID)      { p.broker.Left(string(event)) }
func (p payments) Cancelled(event queue.EventID) { p.broker.Cancelled(string(event)) }

var _ gradioapi.Upstream = (*worker.Supervisor)(nil)

// sign makes the X-IP-Token of an Event or a direct call of this Space.
func (s *spaceRun) sign(event queue.EventID, payer identity.Identity) string {
	token, err := s.host.signer.Sign(identity.Claims{Aud: s.space.Name, Sub: payer.Key(), Tier: payer.Tier, ID: string(event)})
	if err != nil { // without one, the Space's own account pays
		s.host.log.Error("sign token", zap.String("identity", payer.Key()), zap.Error(err))
		return ""
	}
	return token
}

// identify says who calls. A Space that calls itself for a visitor brings the X-IP-Token of that visitor's call
// (Gradio's MCP server does, gradio/mcp.py): they pay for this one too, while that one lives.
func (s *spaceRun) identify(r *http.Request) (identity.Identity, error) {
	if _, person := identity.Bearer(r.Header); !person {
		claims, err := s.host.signer.VerifyFor(r.Header.Get("X-IP-Token"), s.space.Name)
		if err == nil && s.queue.Alive(queue.EventID(claims.ID)) {
			return claims.Identity()
		}
	}
	return s.host.identify(r)
}

// account is the Space's own: for what it does on nobody's behalf. Until it answers, that is start-up
// caching, which is free of limits.
func (s *spaceRun) account() identity.Identity {
	tier := "free"
	if s.supervisor.Status().Stage != space.Running {
		tier = "unlimited"
	}
	return identity.Identity{Kind: identity.Space, Name: s.space.Name, Tier: tier}
}

func (s *spaceRun) openDoor(instance string) (url string, port int) {
	port = s.host.devices.Addr.Port
	path := s.host.device.Open(deviceapi.Door{Space: s.space.Name, Instance: instance, Account: s.account})
	return fmt.Sprintf("http://127.0.0.1:%d%s", port, path), port
}

func (s *spaceRun) started(p worker.StartedProcess) error {
	return s.host.broker.Started(lease.Runner{
		Instance: p.Instance, Space: s.space.Name, Marker: p.Marker, PID: p.PID, Start: p.Start,
	})
}

func (s *spaceRun) ended(instance string) {
	s.host.device.Close(instance)
	s.host.broker.Gone(instance)
	if err := os.RemoveAll(s.host.state.path("run", instance)); err != nil {
		s.host.log.Warn("run folder stays", zap.Error(err))
	}
}

// unknown says aloud that this Space is served otherwise than others.
func (s *spaceRun) unknown(gradio, reason string) {
	s.host.screen.note(fmt.Sprintf("%s: WARNING: the inside of gradio %s is not known to spacehost (%s). Its own queue serves the Space: "+
		"calls are passed through, and start in its order, not the host's. Identity, GPU leases and quota hold as always.", s.space.Name, gradio, reason))
}

// run builds the environment and keeps the Space running until ctx ends.
func (s *spaceRun) run(ctx context.Context) error {
	env, err := s.build(ctx)
	if err != nil {
		return err
	}
	s.env = env
	runner, err := worker.InstallRunner(s.host.state.path("runner"))
	if err != nil {
		return err
	}
	home := s.host.state.path("spaces", s.space.Name, "home")
	if err := os.MkdirAll(filepath.Join(home, "gradio"), 0o700); err != nil {
		return fmt.Errorf("make the Space's home: %w", err)
	}
	vars := spaceEnv(s.host.options, s.space, env, home, visitable(s.site), s.host.zeroGPU())
	s.supervisor.Prepare(env.Python, runner, vars)
	s.host.screen.note("Starting " + s.space.Name + "/" + s.space.AppFile + " ...")
	return s.supervisor.Run(ctx)
}

// answers tells where the Space is, in Gradio's own words.
func (s *spaceRun) answers() {
	s.host.log.Info("space answers", zap.String("space", s.space.Name), zap.String("url", s.url()))
	if !s.host.options.readyJSON {
		s.host.screen.ready("* Running on local URL:  " + s.url())
	}
}

func (s *spaceRun) build(ctx context.Context) (*build.Environment, error) {
	h := s.host
	builder := build.New(build.Config{
		Dir: h.state.environments(), Interpreter: h.options.python, Logger: h.log.Named("build"), Progress: h.screen.step,
		LogPath: h.logFolder("build-" + s.space.Name + ".log"),
	})
	spec := build.Spec{Gradio: s.space.SDKVersion, Python: s.space.PythonVersion, Dir: s.space.Dir}
	env, err := builder.Build(ctx, spec, h.options.rebuild)
	if err != nil {
		return nil, err
	}
	for _, warning := range env.Warnings {
		h.screen.note("warning: " + warning)
	}
	h.screen.note(fmt.Sprintf("Environment: Python %s, gradio %s, spaces %s", env.PythonVersion, env.Gradio, env.Spaces))
	return env, nil
}

func (s *spaceRun) view() console.SpaceView {
	status := s.supervisor.Status()
	manifest, attached := s.queue.Manifest()
	return console.SpaceView{
		Name: s.space.Name, URL: s.url(), Stage: string(status.Stage), Reason: status.Reason,
		PID: status.PID, Queued: s.queue.Size(),
		Gradio: manifest.Gradio, Native: attached && !manifest.PassThrough, Why: manifest.Reason,
	}
}
