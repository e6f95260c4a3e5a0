package host

import (
	"fmt"
	"slices"
	"strings"

	"spacehost/internal/config"
	"spacehost/internal/control"
)

// openSpaces opens the folders of the file's Spaces. One that cannot be opened does not block the rest of the file: an
// existing Space keeps its files and the settings that need a new start, and a new one is retried like at a start of the host.
// Access to an existing Space is that of the file, so that a removed member has none. r.settings then has the settings that will
// be in force. Errors: a kept Space and the file claim the same address or host name.
func (r *reload) openSpaces() error {
	r.checked.Spaces = nil
	kept := map[string]bool{}
	for i, settings := range r.settings.Spaces {
		found, err := r.settings.OpenSpace(settings)
		if err == nil {
			r.checked.Spaces = append(r.checked.Spaces, found)
			for _, warning := range found.Warnings {
				r.checked.Warnings = append(r.checked.Warnings, found.Name+": "+warning)
			}
			continue
		}
		name := settings.Unread().Name
		existing := r.host.find(name)
		failed := control.FailedSpace{Space: name, Reason: err.Error(), Kept: existing != nil}
		if existing == nil || existing.leaving.Load() {
			r.failed = append(r.failed, failed)
			r.checked.Spaces = append(r.checked.Spaces, settings.Unread())
			continue
		}
		latest := existing.latest()
		kept[name] = true
		r.settings.Spaces[i] = latest.settings.WithAtOnce(settings)
		failed.Keys = r.settings.Spaces[i].ChangedKeys(settings)
		r.failed = append(r.failed, failed)
		r.checked.Spaces = append(r.checked.Spaces, latest.space)
	}
	return r.checkKept(kept)
}

// checkKept refuses the file if it gives the address or the host name of a kept Space to another one.
func (r *reload) checkKept(kept map[string]bool) error {
	for _, one := range r.settings.Spaces {
		for _, other := range r.settings.Spaces {
			name, another := one.EffectiveName(), other.EffectiveName()
			if !kept[name] || name == another {
				continue
			}
			switch {
			case one.Addr.Value != "" && other.Addr.Value != "" && config.Collide(one.Addr.Value, other.Addr.Value):
				return fmt.Errorf("the Space %s keeps its address %s, because its files are wrong (%s), and the file gives it to %s; correct the files first", name, one.Addr.Value, r.reasonOf(name), another)
			case one.Addr.Value == "" && other.Addr.Value == "" && slices.ContainsFunc(one.Routes(), func(route string) bool { return slices.Contains(other.Routes(), route) }):
				return fmt.Errorf("the Space %s keeps its host name %s, because its files are wrong (%s), and the file gives it to %s; correct the files first", name, strings.Join(one.Routes(), ", "), r.reasonOf(name), another)
			}
		}
	}
	return nil
}

func (r *reload) reasonOf(name string) string {
	for _, f := range r.failed {
		if f.Space == name {
			return f.Reason
		}
	}
	return ""
}

// failedText describes the Spaces whose files are wrong; "" without one.
func failedText(all []control.FailedSpace) string {
	var texts []string
	for _, f := range all {
		texts = append(texts, f.String())
	}
	return strings.Join(texts, "\n  ")
}
