package host

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"golang.org/x/sync/errgroup"

	"spacehost/gpu"
)

// greet prints the Spaces and the quota that applies, before the long work of a start.
func (h *Host) greet() {
	tier, _ := h.tiers.Load().Get(h.settings().LocalTier.Value) // checked in openTiers
	allowance := fmt.Sprintf("%g s of GPU time a day", tier.Quota.Seconds())
	if tier.Unlimited {
		allowance = "no limit of GPU time"
	}
	if tier.Runs > 0 {
		allowance += fmt.Sprintf(" and %d runs", tier.Runs)
	}
	for _, s := range h.all() {
		s.greet()
	}
	if h.settings().SpacesAreRoot() {
		h.screen.note(h.rootWarning())
		h.log.Warn("spaces run as root")
	}
	if h.visibleGPU != nil {
		h.screen.note(hardwareNote(*h.visibleGPU, h.settings().Hardware.Source))
	}
	if h.settings().IsServe() {
		h.screen.note(fmt.Sprintf("People in %s: %d. All other visitors are identified by address, with tier %q: %s (quota preset %s).",
			h.settings().File, len(h.settings().People), tier.Name, allowance, h.tiers.Load().Preset))
		return
	}
	h.screen.note(fmt.Sprintf("You are a visitor with tier %q: %s (quota preset %s; see --tier, --quota).", tier.Name, allowance, h.tiers.Load().Preset))
}

// greet prints what the operator should know about a Space before its first start.
func (s *spaceRun) greet() {
	s.host.screen.note(fmt.Sprintf("%s: Gradio Space in %s", s.space().Name, s.space().Dir))
	s.host.screen.note(s.isolationLine())
	if warning := s.oauthWarning(); warning != "" {
		s.note("warning: " + warning)
	}
	for _, text := range s.limitNotes(s.countsProcesses()) {
		s.note(text)
	}
}

// rootWarning is about Spaces that run as the root user of the host. Only a file of `serve` can give them other uids.
func (h *Host) rootWarning() string {
	text := "WARNING: spacehost runs as root. The kernel treats the code of every Space below level users as root for the files and devices that the Space sees; below level namespaces it is root on this machine. Run spacehost as an ordinary user"
	if h.settings().IsServe() {
		text += ", or give each Space a uid of its own: set `isolation: users` and a range of uids that no account uses, such as `users: 200000-200999`"
	}
	return text + "."
}

// hardwareNote names the GPU that torch shows, where it can be changed, and the seconds that spaces adds for it (spaces/zero/configs.json, 0.51.3).
func hardwareNote(visible gpu.Hardware, source string) string {
	text := fmt.Sprintf("Outside of GPU functions, torch shows %s (see %s).", visible.Name, source)
	if factor := visible.DurationFactor; factor > 1 {
		text += fmt.Sprintf(" For this GPU the spaces package requests %g times the seconds that a function declares.", factor)
	}
	return text
}

// announceReady prints the URL of each running Space, then the ready line. It waits until every Space has started or
// failed. A Space that failed is announced when a retry succeeds.
func (h *Host) announceReady(ctx context.Context) error {
	var late errgroup.Group
	for _, s := range h.all() {
		select {
		case <-s.supervisor.Ready():
			s.announceURL()
		case <-s.failed:
			late.Go(func() error { return s.announceWhenReady(ctx) })
		case <-ctx.Done():
		}
	}
	if ctx.Err() == nil {
		h.printReady()
	}
	return late.Wait()
}

// ReadyLine is the JSON line of --ready-json. It is printed once every Space is running or, with `serve`, has failed. URL is
// the first Space's.
type ReadyLine struct {
	Event        string       `json:"event"`
	URL          string       `json:"url"`
	Console      string       `json:"console"`
	ConsoleLocal string       `json:"consoleLocal"`   // on this machine, without TLS
	Link         string       `json:"link,omitempty"` // signs its first visitor in at the console, as the local visitor
	State        string       `json:"state"`
	Socket       string       `json:"socket"`
	PID          int          `json:"pid"`
	Cluster      string       `json:"cluster,omitempty"` // address for agents of nodes; absent: the host accepts none
	Spaces       []ReadySpace `json:"spaces"`
}

// ReadySpace is one Space in a ReadyLine.
type ReadySpace struct {
	Name   string `json:"name"`
	URL    string `json:"url"`   // in browsers
	Local  string `json:"local"` // on this machine, without TLS
	Stage  string `json:"stage"`
	Gradio string `json:"gradio"`        // "" if the Space does not run
	Zero   string `json:"spacesPackage"` // version of the `spaces` package; "" if the Space does not run
	Level  string `json:"isolation"`     // in force: none, files, namespaces or users
}

func (h *Host) printReady() {
	consoleURL := h.consoleAddress().String()
	if !h.settings().ReadyJSON {
		if !h.settings().IsServe() {
			consoleURL = h.newLoginLink()
		}
		h.screen.ready("* Console:               " + consoleURL)
		if h.cluster != nil {
			h.screen.ready("* Agents of nodes join:  " + h.cluster.address())
		}
		return
	}
	line := ReadyLine{
		Event: "ready", URL: h.all()[0].url(), Console: consoleURL, ConsoleLocal: "http://" + dialAddr(h.console), State: h.state.dir, Socket: h.state.path("control.sock"), PID: os.Getpid(),
	}
	if h.cluster != nil {
		line.Cluster = h.cluster.address()
	}
	if !h.settings().IsServe() {
		line.Link = h.newLoginLink()
	}
	for _, s := range h.all() {
		one := ReadySpace{Name: s.space().Name, URL: s.url(), Local: s.localURL(), Stage: string(s.supervisor.Status().Stage), Level: s.level().String()}
		select {
		case <-s.supervisor.Ready(): // only then are they certain: each try replaces them
			one.Gradio, one.Zero = s.versions()
		default:
		}
		line.Spaces = append(line.Spaces, one)
	}
	text, _ := json.Marshal(line) // plain strings cannot fail
	h.screen.ready(string(text))
}
