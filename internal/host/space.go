package host

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/labstack/echo/v4"
	"go.uber.org/zap"

	"spacehost/gradioapi"
	"spacehost/internal/build"
	"spacehost/internal/config"
	"spacehost/internal/console"
	"spacehost/internal/deviceapi"
	"spacehost/internal/identity"
	"spacehost/internal/lease"
	"spacehost/internal/space"
	"spacehost/internal/views"
	"spacehost/queue"
	"spacehost/server"
	"spacehost/worker"
)

// spaceRun is one Space under a Host: its address, its environment, its process, its queue.
type spaceRun struct {
	host       *Host
	settings   config.SpaceSettings
	space      *space.Space
	site       server.Site // its own address: its JavaScript is hostile to the console and to other Spaces
	supervisor *worker.Supervisor
	queue      *queue.Queue
	env        *build.Environment
	asked      lastAsked
	told       onces         // causes that the operator has been told
	failed     chan struct{} // closed when it has not started for the first time, if the others go on
}

// url is where visitors find it; a proxy in front may have another.
func (s *spaceRun) url() string {
	if s.settings.Addr.Value != "" {
		return "http://" + visitable(s.site)
	}
	if port := s.site.Addr.Port; port != 80 {
		return fmt.Sprintf("http://%s:%d", s.settings.Host, port)
	}
	return "http://" + s.settings.Host
}

// publicName is what the Hub calls SPACE_HOST.
func (s *spaceRun) publicName() string {
	if s.settings.Host != "" {
		return s.settings.Host
	}
	return visitable(s.site)
}

func (s *spaceRun) wire() {
	h := s.host
	s.supervisor = worker.NewSupervisor(worker.SupervisorConfig{
		Space: s.space.Name, Dir: s.space.Dir, AppFile: s.space.AppFile, PublicURL: s.url(),
		RunDir: h.state.path("run"), Secrets: s.settings.Secrets, Processes: h.processes,
		StartupTimeout: s.space.StartupTimeout, Device: s.openDoor, Simulated: h.simulated(), Started: s.started, Ended: s.ended, Note: s.note, Unknown: s.unknown,
		Account: s.Account, Output: func(line string) { h.screen.space(s.space.Name, line) },
		Logger: h.log.Named("worker").With(zap.String("space", s.space.Name)),
	})
	s.queue = queue.New(queue.Config{
		Runner: s.supervisor, Payments: payments{h.broker}, Sign: s.sign, Now: h.clock.Now,
		Logger: h.log.Named("queue").With(zap.String("space", s.space.Name)),
	})
	s.supervisor.SetQueue(s.queue)
}

// register says what is answered at the Space's address.
func (s *spaceRun) register() {
	if s.settings.Addr.Value != "" { // else the shared address has found it by its name
		server.Gate(s.site.Echo, s.host.settings.HostNames(s.settings))
	}
	if s.settings.Visibility == config.Private {
		s.site.Pre(s.membersOnly)
	}
	s.site.Pre(s.knowVisitors)
	s.host.signIn.RegisterSpace(s.site.Group("/__spacehost"), server.SameOrigin, signInSpace{s})
	api := gradioapi.New(gradioapi.Config{
		Space: s.space.Name, Queue: s.queue, Upstream: s.supervisor,
		Identify: s.caller, SessionOwner: s.sessionOwner, IssueVisitorCookie: s.issueVisitorCookie, SignToken: s.sign, AdmitBySpace: s.host.settings.AdmitBySpace, Storage: s.storage(), Logger: s.host.log.Named("gradioapi"),
	})
	api.Register(s.site.Echo)
	s.host.onClose(api.Close)
}

// membersOnly hides a private Space: to all others nothing is here, as at a name that no Space has. A token that is
// unknown or revoked is no exception, or its 401 would tell that there is something to be seen. A member's own
// token opens it to the Space that calls on their behalf.
//
//  1. A sign-in opens it, in whichever mode: who may see it is not the question of who pays.
//  2. Who has signed in and comes by a link is known once their own browser asks.
//  3. The console's page brings a code, which has to be looked at; without a good one the answer is the same.
func (s *spaceRun) membersOnly(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		r := c.Request()
		if visitor, err := s.caller(r); err == nil && s.isMember(visitor) {
			return next(c)
		}
		if visitor, ok, err := s.host.payer.BrowserUser(r, s.space.Name); err == nil && ok && s.isMember(visitor) { // 1
			return next(c)
		}
		if server.IsVisit(r) && s.comesBack(r) { // 2
			return console.Reload(c)
		}
		if r.Method == http.MethodPost && r.URL.Path == "/__spacehost/session" { // 3
			return next(c)
		}
		return echo.ErrNotFound
	}
}

// comesBack reports whether the browser of a request that a page of another site caused is a member's.
func (s *spaceRun) comesBack(r *http.Request) bool {
	who, ok, err := s.host.people.SignedIn(r.Context(), s.space.Name, s.cookies().SignIn(r))
	return err == nil && ok && s.isMember(who)
}

func (s *spaceRun) isMember(visitor identity.Identity) bool {
	return visitor.Kind == identity.User && slices.Contains(s.settings.Members, visitor.Name)
}

// storage is where the Space's files lie: its home, which holds Gradio's folder (environ.go, GRADIO_TEMP_DIR).
func (s *spaceRun) storage() gradioapi.Storage {
	root := s.host.state.path("spaces", s.space.Name)
	home := filepath.Join(root, "home")
	return gradioapi.Storage{
		Root: root, Uploads: filepath.Join(home, "gradio"), Staging: filepath.Join(root, "uploading"),
		Served: []string{home, s.space.Dir},
	}
}

// makeFolders also clears what a host that crashed had half taken.
func (s *spaceRun) makeFolders() error {
	storage := s.storage()
	if err := os.RemoveAll(storage.Staging); err != nil {
		return fmt.Errorf("clear half uploads: %w", err)
	}
	for _, dir := range []string{storage.Uploads, storage.Staging} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("make the Space's folders: %w", err)
		}
	}
	return nil
}

// payments tells the broker what becomes of visitors, in its own words for an Event.
type payments struct{ broker *lease.Broker }

func (p payments) Left(event queue.EventID)      { p.broker.Left(string(event)) }
func (p payments) Cancelled(event queue.EventID) { p.broker.Cancelled(string(event)) }
func (p payments) Closing(event queue.EventID)   { p.broker.Closing(string(event)) }

var _ gradioapi.Upstream = (*worker.Supervisor)(nil)

// sign returns the X-IP-Token of an Event of this Space.
func (s *spaceRun) sign(event queue.Event) string { return s.host.payer.Sign(s.space.Name, event) }

// Account implements payer.Space: the Space's own: for what it does on nobody's behalf. Until it answers, that is start-up
// caching, which is free of limits.
func (s *spaceRun) Account() identity.Identity {
	tier := "free"
	if s.supervisor.Status().Stage != space.Running {
		tier = "unlimited"
	}
	return identity.Identity{Kind: identity.Space, Name: s.space.Name, Tier: tier}
}

func (s *spaceRun) openDoor(instance string) (url string, port int) {
	port = s.host.devices.Addr.Port
	path := s.host.device.Open(deviceapi.Door{Space: s.space.Name, Instance: instance, Account: s.Account, Function: s.function})
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

func (s *spaceRun) note(text string) { s.host.screen.note(s.space.Name + ": " + text) }

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
	if err := s.makeFolders(); err != nil {
		return err
	}
	home := filepath.Dir(s.storage().Uploads)
	vars := spaceEnv(s.variables(), s.space, env, home, s.publicName(), s.host.seen)
	s.supervisor.Prepare(env.Python, runner, vars)
	s.host.screen.note("Starting " + s.space.Name + "/" + s.space.AppFile + " ...")
	return s.supervisor.Run(ctx)
}

// variables are those that its user gives it, and where it finds other Spaces by name, if they are to.
func (s *spaceRun) variables() map[string]string {
	all := map[string]string{}
	if s.host.settings.ByName {
		all["HF_ENDPOINT"] = "http://" + visitable(s.host.console)
	}
	maps.Copy(all, s.settings.Variables)
	return all
}

// Pauses before a Space that did not start is tried again.
const (
	firstRetry = 10 * time.Second
	lastRetry  = 5 * time.Minute
)

// keep runs the Space until ctx ends, again and again if it does not start: the others go on meanwhile.
func (s *spaceRun) keep(ctx context.Context) error {
	said := ""
	for pause := firstRetry; ctx.Err() == nil; pause = min(2*pause, lastRetry) {
		s.supervisor.NotRunning(space.Building, "")
		err := s.run(ctx)
		if ctx.Err() != nil {
			break
		}
		s.isDown(err, pause, &said)
		select {
		case <-time.After(pause):
		case <-s.supervisor.Restarts():
			pause, said = firstRetry/2, ""
		case <-ctx.Done():
		}
	}
	return nil
}

// isDown says why the Space does not run: to the operator in full, if that is news, and to visitors in a sentence.
func (s *spaceRun) isDown(err error, pause time.Duration, said *string) {
	stage, reason := cmp.Or(stageOf(err), space.RuntimeFailed), err.Error()
	if built := (*build.Error)(nil); errors.As(err, &built) {
		reason = built.Problem // the rest is about this machine
	}
	s.supervisor.NotRunning(stage, reason)
	s.host.log.Warn("space does not start", zap.String("space", s.space.Name), zap.Error(err), zap.Duration("pause", pause))
	next := fmt.Sprintf("The other Spaces go on. This one is tried again in %s, or at once by `spacehost space restart %s`.", pause, s.space.Name)
	if err.Error() == *said {
		s.note(fmt.Sprintf("%s, as before. %s", stage, next))
	} else {
		var text strings.Builder
		Explain(&text, s.space.Name, err)
		s.host.screen.note(text.String() + "  " + next)
	}
	*said = err.Error()
	select {
	case <-s.failed:
	default:
		close(s.failed)
	}
}

// answersLate waits for a Space that did not start with the others.
func (s *spaceRun) answersLate(ctx context.Context) error {
	select {
	case <-s.supervisor.Ready():
		s.answers()
	case <-ctx.Done():
	}
	return nil
}

// answers tells where the Space is, in Gradio's own words.
func (s *spaceRun) answers() {
	s.host.log.Info("space answers", zap.String("space", s.space.Name), zap.String("url", s.url()))
	if !s.host.settings.ReadyJSON {
		s.host.screen.ready("* Running on local URL:  " + s.url())
	}
}

func (s *spaceRun) build(ctx context.Context) (*build.Environment, error) {
	h := s.host
	builder := build.New(build.Config{
		Dir: h.state.environments(), Interpreter: s.settings.Python, Logger: h.log.Named("build"), Progress: h.screen.step,
		LogPath: h.logFolder("build-" + s.space.Name + ".log"),
	})
	spec := build.Spec{Gradio: s.space.SDKVersion, Python: s.space.PythonVersion, Dir: s.space.Dir}
	env, err := builder.Build(ctx, spec, h.settings.Rebuild)
	if err != nil {
		return nil, err
	}
	for _, warning := range env.Warnings {
		h.screen.note("warning: " + warning)
	}
	h.screen.note(fmt.Sprintf("Environment: Python %s, gradio %s, spaces %s", env.PythonVersion, env.Gradio, env.Spaces))
	return env, nil
}

func (s *spaceRun) view() views.Space {
	status := s.supervisor.Status()
	manifest, attached := s.queue.Manifest()
	return views.Space{
		Name: s.space.Name, URL: s.url(), Stage: string(status.Stage), Reason: status.Reason,
		PID: status.PID, Queued: s.queue.Size(),
		Gradio: manifest.Gradio, Native: attached && !manifest.PassThrough, Why: manifest.Reason,
	}
}
