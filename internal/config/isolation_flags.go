package config

import (
	"fmt"
	"os"
	"path/filepath"
)

// IsolationFlags are the isolation flags of `run`, as given.
type IsolationFlags struct {
	Isolation, Egress, Data string   // Data is empty without --data
	Mounts, Limits, Reach   []string // repeated flags
}

// flagOfKey names the flag of each key that a flag can set.
var flagOfKey = map[string]string{"isolation": "--isolation", "egress": "--egress", "reach": "--reach", "mounts": "--mount", "data": "--data", "limits": "--limit"}

// Parse returns the settings of every Space of `run`, with warnings. state is the state folder. An error names the flag.
func (f IsolationFlags) Parse(state string) (s IsolationSettings, warnings []string, err error) {
	s.Places = map[string]Place{}
	for key, flag := range flagOfKey {
		s.Places[key] = Place{Key: flag}
	}
	if s.Isolation, err = ParseIsolation(f.Isolation); err != nil {
		return s, nil, s.Places["isolation"].Mistake("%w", err)
	}
	if s.Egress, err = ParseEgress(f.Egress); err != nil {
		return s, nil, s.Places["egress"].Mistake("%w", err)
	}
	for _, text := range f.Reach {
		to, err := ParseReach(text)
		if err != nil {
			return s, nil, s.Places["reach"].Mistake("%w", err)
		}
		s.Reach = append(s.Reach, to)
	}
	for _, text := range f.Limits {
		key, err := s.Limits.Parse(text)
		if err != nil {
			return s, nil, s.Places["limits"].Mistake("%w", err)
		}
		s.Places["limits."+key] = s.Places["limits"]
	}
	if warnings, err = f.parsePaths(&s, state); err != nil {
		return s, nil, err
	}
	return s, warnings, s.checkFlags()
}

// parsePaths parses --mount and --data. Relative paths are relative to the current folder.
func (f IsolationFlags) parsePaths(s *IsolationSettings, state string) (warnings []string, err error) {
	check := func(place Place, path string) error {
		warning, err := CheckMount(path, state)
		if err != nil {
			return place.Mistake("%w", err)
		}
		if warning != "" {
			warnings = append(warnings, fmt.Sprintf("%s: %s", place, warning))
		}
		return nil
	}
	for _, text := range f.Mounts {
		mount, err := ParseMount(text)
		if err != nil {
			return nil, s.Places["mounts"].Mistake("%w", err)
		}
		if err := check(s.Places["mounts"], mount.Path); err != nil {
			return nil, err
		}
		s.Mounts = append(s.Mounts, mount)
	}
	if f.Data == "" {
		return warnings, nil
	}
	base, err := filepath.Abs(".")
	if err != nil {
		return nil, s.Places["data"].Mistake("cannot read the current folder: %w; give an absolute path", err)
	}
	if s.Data, err = ParseData(f.Data, base); err != nil {
		return nil, s.Places["data"].Mistake("%w", err)
	}
	if err := s.Data.checkFolder(); err != nil {
		return nil, s.Places["data"].Mistake("%w", err)
	}
	if s.Data.Path != "" {
		err = check(s.Places["data"], s.Data.Path)
	}
	return warnings, err
}

// checkFolder refuses a path that is no folder.
func (d Data) checkFolder() error {
	if d.Path == "" {
		return nil
	}
	if info, err := os.Stat(d.Path); err != nil || !info.IsDir() {
		return fmt.Errorf("%s is not a folder; create it, give another path, or use true for a folder in the state folder", d.Path)
	}
	return nil
}

// checkFlags refuses flags that the level does not enforce.
func (s IsolationSettings) checkFlags() error {
	if s.Isolation == IsolationUsers {
		return s.Places["isolation"].Mistake("the level users is only available with `serve`, whose key `users` holds the uids; use namespaces or auto")
	}
	for _, d := range s.unmetDemands() {
		return s.Places[d.key].Mistake("requires --isolation %s, but --isolation is %s; change --isolation, or remove %s", d.least, s.Isolation, s.Places[d.key])
	}
	return nil
}
