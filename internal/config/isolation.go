package config

import (
	"fmt"
	"net/netip"
)

// Isolation is the level at which a Space is kept apart from the machine and from other Spaces. Levels are ordered: a
// higher level promises everything that a lower one promises. The zero value promises nothing.
type Isolation int

// The levels of isolation, from the weakest to the strongest.
const (
	// IsolationNone runs the Space with the rights of the host.
	IsolationNone Isolation = iota
	// IsolationFiles limits the files, signals and TCP ports of the Space (Landlock, seccomp).
	IsolationFiles
	// IsolationNamespaces also gives the Space its own view of processes, files and network.
	IsolationNamespaces
	// IsolationUsers also gives the Space its own uid, from Settings.Users.
	IsolationUsers
)

// IsolationAuto selects the highest level below IsolationUsers that the machine offers, and at least
// IsolationSettings.Least. It has no place in the order of levels.
const IsolationAuto Isolation = -1

var isolationWords = []string{"none", "files", "namespaces", "users", "auto"}

// String returns the word of the level in flags and files.
func (i Isolation) String() string {
	switch {
	case i == IsolationAuto:
		return "auto"
	case i >= IsolationNone && i <= IsolationUsers:
		return isolationWords[i]
	}
	return fmt.Sprintf("Isolation(%d)", int(i))
}

// ParseIsolation parses the word of a level: none, files, namespaces, users or auto.
func ParseIsolation(text string) (Isolation, error) {
	for _, level := range []Isolation{IsolationNone, IsolationFiles, IsolationNamespaces, IsolationUsers, IsolationAuto} {
		if text == level.String() {
			return level, nil
		}
	}
	return IsolationNone, fmt.Errorf("unknown level %.40q; %s", text, suggest(text, isolationWords, "use one of "))
}

// IsolationSettings are the settings that keep one Space apart. The defaults of the top level of a file are already
// applied.
type IsolationSettings struct {
	Isolation Isolation
	Egress    Egress
	Reach     []netip.AddrPort // private destinations that the Space may connect to
	Limits    Limits
	// SourceMode is SourceDefault unless a flag or key sets it; SourceAt returns the mode in force.
	SourceMode   SourceMode
	Data         Data
	PrivateCache bool // the Hub cache is the Space's own, not shared with the host's user
	NodesByLease bool // the device nodes of a GPU exist for the Space only while it has a lease of that GPU
	Mounts       []Mount
	Calls        []string // names of the Spaces that it may call; nil: all; empty: none
	// Places holds the place of each key that is set for the Space, such as "egress" or "limits.memory".
	Places map[string]Place
}

// demand is a key that has an effect only at some level of isolation.
type demand struct {
	key   string
	least Isolation
	// restricts tells a key that takes rights from the Space from a key that gives it a right. A Space below least has
	// the rights anyway.
	restricts bool
}

// demands lists the keys that need a level above IsolationNone.
func (s IsolationSettings) demands() (all []demand) {
	for _, d := range []struct {
		demand
		isSet bool
	}{
		{demand{"egress", IsolationNamespaces, true}, s.Egress.Mode != EgressHub},
		{demand{"reach", IsolationNamespaces, false}, len(s.Reach) > 0},
		{demand{"source", IsolationNamespaces, true}, s.SourceMode == SourceOverlay || s.SourceMode == SourceReadOnly},
		{demand{"data", IsolationNamespaces, true}, s.Data.Keep},
		{demand{"cache", IsolationFiles, true}, s.PrivateCache},
		{demand{"mounts", IsolationFiles, false}, len(s.Mounts) > 0},
		{demand{"calls", IsolationNamespaces, true}, s.Calls != nil},
		{demand{"gpu_nodes", IsolationNamespaces, true}, s.NodesByLease},
	} {
		if d.isSet {
			all = append(all, d.demand)
		}
	}
	return all
}

// Least returns the lowest level at which the settings are in force. IsolationAuto must not select a lower one. Keys that
// give the Space a right, such as mounts, do not count: a Space at a lower level has that right.
func (s IsolationSettings) Least() Isolation {
	least := IsolationNone
	for _, d := range s.demands() {
		if d.restricts {
			least = max(least, d.least)
		}
	}
	return least
}

// unmetDemands lists the demands that the configured level does not meet. IsolationAuto meets all.
func (s IsolationSettings) unmetDemands() (all []demand) {
	for _, d := range s.demands() {
		if s.Isolation != IsolationAuto && s.Isolation < d.least {
			all = append(all, d)
		}
	}
	return all
}

// SourceMode is the access of a Space to its own folder.
type SourceMode int

// The modes. SourceDefault stands for a key that is not set.
const (
	SourceDefault   SourceMode = iota
	SourceOverlay              // writes go to a layer in the state folder; the folder itself does not change
	SourceReadWrite            // writes change the folder
	SourceReadOnly             // writes fail
)

var sourceWords = map[SourceMode]string{SourceOverlay: "overlay", SourceReadWrite: "rw", SourceReadOnly: "ro"}

// String returns the word of the mode in files, or "default".
func (m SourceMode) String() string {
	if word, ok := sourceWords[m]; ok {
		return word
	}
	return "default"
}

// ParseSourceMode parses overlay, rw or ro.
func ParseSourceMode(text string) (SourceMode, error) {
	for mode, word := range sourceWords {
		if text == word {
			return mode, nil
		}
	}
	known := []string{"overlay", "rw", "ro"}
	return SourceDefault, fmt.Errorf("unknown value %.40q; %s", text, suggest(text, known, "use one of "))
}

// SourceAt returns the mode of a Space at a level that is in force. The default is SourceOverlay for a Space of `serve`
// from IsolationNamespaces on, else SourceReadWrite.
func (s IsolationSettings) SourceAt(level Isolation, isServe bool) SourceMode {
	switch {
	case s.SourceMode != SourceDefault:
		return s.SourceMode
	case isServe && level >= IsolationNamespaces:
		return SourceOverlay
	}
	return SourceReadWrite
}
