package host

import (
	"cmp"
	"slices"

	"spacehost/internal/config"
	"spacehost/internal/hubapi"
	"spacehost/internal/identity"
	"spacehost/internal/views"
	"spacehost/queue"
)

// SpaceViews returns all Spaces, with what only the operator may see.
func (h *Host) SpaceViews() (all []views.Space) {
	for _, s := range h.all() {
		view := s.view()
		view.EgressRefused = s.lastRefusal()
		all = append(all, view)
	}
	return all
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
	return views.Space{
		Name: s.space().Name, URL: s.url(), Stage: string(status.Stage), Reason: status.Reason,
		PID: status.PID, Queued: s.queue.Size(), Isolation: s.level().String(),
		Gradio: manifest.Gradio, Native: attached && !manifest.PassThrough, Why: manifest.Reason,
		Page: s.pageURL(), Title: s.space().Title, Header: s.space().Header, FullWidth: s.space().FullWidth,
	}
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
	s := h.find(name)
	if s == nil || s.settings().Visibility == config.Private && !s.isMember(viewer) || s.settings().Visibility == config.Protected && viewer.Kind == identity.Address {
		return hubapi.Space{}, false
	}
	hardware := "cpu-basic"
	if h.zeroGPU() {
		hardware = "zero-a10g" // as in ACCELERATOR
	}
	return hubapi.Space{
		Name: s.space().Name, Title: s.space().Title, SDKVersion: s.space().SDKVersion, URL: s.url(), Stage: string(s.supervisor.Status().Stage),
		Hardware: hardware, Private: s.settings().Visibility == config.Private,
	}, true
}
