package host

import (
	"cmp"
	"slices"

	"spacehost/internal/config"
	"spacehost/internal/hubapi"
	"spacehost/internal/identity"
	"spacehost/internal/space"
	"spacehost/internal/stages"
	"spacehost/internal/views"
	"spacehost/queue"
)

// SpaceViews returns all Spaces, with what only the operator may see.
func (h *Host) SpaceViews() (all []views.Space) {
	for _, s := range h.all() {
		all = append(all, s.operatorView())
	}
	return all
}

// operatorView is view with what only the operator may see.
func (s *spaceRun) operatorView() views.Space {
	view := s.view()
	view.EgressRefused = s.lastRefusal()
	view.Reason = cmp.Or(s.supervisor.Status().Hint, view.Reason)
	view.Paused, _ = s.paused.get()
	if s.host.settings().IsFront() {
		view.Node = s.node()
	}
	if why := s.waitsForNode(); why != "" {
		view.Reason = "It waits for a machine: " + why + "."
	}
	return view
}

// PublicSpaceViews returns the Spaces that are visible to everyone.
func (h *Host) PublicSpaceViews() (all []views.Space) {
	for _, s := range h.all() {
		if s.settings().Visibility == config.Public {
			all = append(all, s.view())
		}
	}
	return all
}

func (s *spaceRun) view() views.Space {
	status := s.supervisor.Status()
	manifest, attached := s.queue.Manifest()
	paused, _ := s.paused.get()
	if paused != nil {
		paused = &stages.Pause{At: paused.At, Reason: paused.Reason} // its operator is not for everyone
	}
	return views.Space{
		Name: s.space().Name, URL: s.url(), Stage: string(status.Stage), Reason: status.Reason,
		PID: status.PID, Queued: s.queue.Size(), Isolation: s.level().String(),
		Gradio: manifest.Gradio, Native: attached && !manifest.PassThrough, Why: manifest.Reason,
		Page: s.pageURL(), Title: s.space().Title, Header: s.space().Header, FullWidth: s.space().FullWidth,
		Emoji: s.space().Emoji, ColorFrom: s.space().ColorFrom, ColorTo: s.space().ColorTo, ShortDescription: s.space().ShortDescription,
		SDKVersion: s.space().SDKVersion, Hardware: s.host.hubHardware(), Sizes: sizesOf(manifest), Paused: paused, WaitsForNode: s.waitsForNode() != "", Visibility: string(s.settings().Visibility),
	}
}

// sizesOf returns the sizes that GPU functions request, each once.
func sizesOf(m queue.Manifest) (all []string) {
	for _, task := range m.Tasks {
		if size := cmp.Or(task.Size, "large"); !slices.Contains(all, size) {
			all = append(all, size)
		}
	}
	slices.Sort(all)
	return all
}

// hubHardware returns the Hub's name of the hardware, as in ACCELERATOR.
func (h *Host) hubHardware() string {
	if h.zeroGPU() {
		return "zero-a10g"
	}
	return "cpu-basic"
}

// Functions returns the GPU functions of the Spaces that viewer may see, sorted by Space and name. A nil viewer sees all.
func (h *Host) Functions(viewer *identity.Identity) (all []views.Function) {
	for _, s := range h.all() {
		if s.isVisible(viewer) {
			all = append(all, s.functions()...)
		}
	}
	return all
}

// WaitsForNode implements views.Spaces.
func (h *Host) WaitsForNode(name string) (why string) {
	if s := h.find(name); s != nil {
		why = s.waitsForNode()
	}
	return why
}

// SpaceNames returns the names of the Spaces that viewer may see. A nil viewer sees all.
func (h *Host) SpaceNames(viewer *identity.Identity) (names []string) {
	for _, s := range h.all() {
		if s.isVisible(viewer) {
			names = append(names, s.space().Name)
		}
	}
	return names
}

func (s *spaceRun) functions() (all []views.Function) {
	manifest, _ := s.queue.Manifest()
	for id, task := range manifest.Tasks {
		all = append(all, s.functionView(id, task))
	}
	slices.SortFunc(all, func(a, b views.Function) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Declared, b.Declared))
	})
	return all
}

// functionView returns what a call of a Task declares: the values of the last call, else those of the decorator.
func (s *spaceRun) functionView(id string, task queue.Task) views.Function {
	f := views.Function{Space: s.space().Name, Name: task.Name, Size: cmp.Or(task.Size, "large"), Declared: task.Declared, From: views.FromDecorator}
	f.Unresponsive = s.supervisor.Status().Stage == space.Unresponsive
	if task.Varies {
		f.Declared, f.From = 0, ""
	}
	if last, called := s.lastRequests.of(id); called && last.Declared != f.Declared {
		f.Declared, f.From, f.Size = last.Declared, views.FromCall, cmp.Or(last.Size, f.Size)
	}
	return f
}

// HubSpace implements hubapi.Spaces: it returns the Space of that name if the viewer may see it. A protected Space is visible
// to every Identity except an address, so also to the other Spaces of this host.
func (h *Host) HubSpace(viewer identity.Identity, name string) (hubapi.Space, bool) {
	found, ok := spacesInside{h}.HubSpace(viewer, name)
	if s := h.find(name); ok && viewer.Kind != identity.Space {
		found.URL = s.url()
	}
	return found, ok
}

// spacesInside implements hubapi.Spaces for clients in the network of a Space, which reach the addresses on which Spaces listen.
type spacesInside struct{ *Host }

func (h spacesInside) HubSpace(viewer identity.Identity, name string) (hubapi.Space, bool) {
	s := h.find(name)
	if s == nil || s.settings().Visibility == config.Private && !s.isMember(viewer) || s.settings().Visibility == config.Protected && viewer.Kind == identity.Address {
		return hubapi.Space{}, false
	}
	return hubapi.Space{
		Name: s.space().Name, Title: s.space().Title, SDKVersion: s.space().SDKVersion, URL: s.localURL(), Stage: string(s.supervisor.Status().Stage.OnHub()),
		Hardware: h.hubHardware(), Private: s.settings().Visibility == config.Private,
	}, true
}
