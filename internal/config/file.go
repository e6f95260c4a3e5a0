package config

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"spacehost/gpu"
	"spacehost/internal/web"
)

const (
	maxConfig = 1 << 20
	maxSecret = 64 << 10
	// maxConcurrency is above the number of GPU slots of any machine.
	maxConcurrency = 1000
)

// loader reads the file of `spacehost serve`, which docs/operator-guide.md describes. It reads every key first and then checks
// references between keys (crosscheck.go).
type loader struct {
	*document
	folder        string // the base of relative paths
	worldReadable bool   // users other than the owner may read the file
	warnings      []string
	settings      Settings
	spaces        []spaceEntry
	people        []personEntry
	pools         []poolEntry
	adminGroups   []adminGroup
	isolation     isolationEntry // defaults of the Spaces
	liveness      livenessEntry  // likewise
	bar           bool           // likewise
	usersAt       node
	agentAt       node
	orphanAfterAt node
	sources       []string // of Settings
	states        map[string]SourceState
	stateFlag     string // absolute; overrides the state folder of the file, unless it is empty
	isRoot        bool
}

// Load returns the settings of a file, with warnings for its author. state is an absolute path that overrides the state
// folder of the file, unless it is empty. Errors: *FileError.
func Load(path, state string) (s Settings, warnings []string, err error) {
	return load(path, state, os.Geteuid() == 0)
}

func load(path, state string, isRoot bool) (s Settings, warnings []string, err error) {
	l := &loader{document: &document{file: path}, stateFlag: state, isRoot: isRoot}
	data, ok := l.readFile(path)
	if ok {
		var root node
		if root, ok = l.parseYAML(data); ok {
			l.defaults()
			l.top(root)
			l.crossCheck(root)
		}
	}
	l.settings.Sources, l.settings.SourceStates = l.sources, l.states
	if l.settings.StateFlag = state; state != "" {
		l.settings.State = state
	}
	return l.settings, l.warnings, l.err()
}

func (l *loader) readFile(path string) ([]byte, bool) {
	at := node{doc: l.document, line: 1}
	abs, err := filepath.Abs(path)
	if err == nil {
		l.folder = filepath.Dir(abs)
		l.worldReadable = isWorldReadable(path)
	}
	l.addSource(path)
	data, err := readSmall(path, maxConfig)
	if err != nil {
		at.fail("cannot read the file: %v; give the path of the configuration with --config", WithoutPath(err))
		return nil, false
	}
	return data, true
}

// addSource records a file that is about to be read. A change after that is not part of the settings.
func (l *loader) addSource(path string) {
	l.sources = append(l.sources, path)
	if info, err := os.Stat(path); err == nil {
		if l.states == nil {
			l.states = map[string]SourceState{}
		}
		l.states[path] = SourceState{info.Size(), info.ModTime()}
	}
}

// readSmall reads a regular file of limited size. It refuses pipes, because reading one blocks until it is written.
func readSmall(path string, most int64) ([]byte, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, errors.New("it is not a regular file")
	case info.Size() > most:
		return nil, fmt.Errorf("it is larger than %d KiB", most>>10)
	}
	return os.ReadFile(path)
}

// WithoutPath returns the cause of a file error, for messages that already contain the path.
func WithoutPath(err error) error {
	var path *os.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

// isWorldReadable reports whether every user of the machine may read a file.
func isWorldReadable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().Perm()&0o004 != 0
}

func (l *loader) defaults() {
	l.settings = Settings{
		File:    l.file,
		Address: Setting{"127.0.0.1:7860", "`address` in " + l.file}, Console: Setting{"127.0.0.1:7870", "`console` in " + l.file},
		GPUs: Setting{"auto", l.file + ": gpus"}, Hardware: Setting{gpu.AutoHardware, l.file + ": gpus.hardware"}, Preset: Setting{DefaultPreset, l.file + ": quota"},
		LocalTier: Setting{"unauthenticated", l.file + ": tiers"}, Share: 1, EndUnleased: true, QueueTimeout: 60 * time.Second, WarmFor: 5 * time.Minute, Drain: DefaultDrain, Keep: DefaultKeep, Log: DefaultLog,
	}
	l.isolation.Isolation = IsolationNamespaces
	l.bar = true
}

// setting returns text with the node's file, line and key as its source.
func (n node) setting(text string) Setting {
	return Setting{text, fmt.Sprintf("%s:%d: %s", n.doc.file, n.line, n.path)}
}

// addressSetting is like setting, with a source that fits into a sentence about an address.
func (n node) addressSetting(text string) Setting {
	return Setting{text, fmt.Sprintf("`%s` in %s:%d", n.path, n.doc.file, n.line)}
}

func (l *loader) top(root node) {
	s := &l.settings
	known := map[string]func(node){
		"state":           func(n node) { l.path(n, &s.State) },
		"gpus":            l.gpus,
		"quota":           l.preset,
		"tiers":           l.tiers,
		"queue_timeout":   func(n node) { set(&s.QueueTimeout)(n.duration(time.Second, 24*time.Hour)) },
		"warm":            func(n node) { set(&s.WarmFor)(n.duration(0, 24*time.Hour)) },
		"drain":           func(n node) { set(&s.Drain)(n.duration(0, time.Hour)) },
		"agent":           l.agent,
		"orphan_after":    l.orphanAfter,
		"cluster":         l.cluster,
		"pools":           func(n node) { n.list("pools", l.pool) },
		"liveness":        l.liveness.read,
		"bar":             func(n node) { set(&l.bar)(n.boolean()) },
		"keep":            func(n node) { set(&s.Keep)(n.keep()) },
		"total_limits":    func(n node) { n.limits(&s.TotalLimits, totalKeys, nil) },
		"log":             l.log,
		"address":         func(n node) { l.address(n, &s.Address) },
		"console":         func(n node) { l.address(n, &s.Console) },
		"by_name":         func(n node) { set(&s.ByName)(n.boolean()) },
		"console_url":     func(n node) { l.webAddress(n, &s.ConsoleURL) },
		"tls":             l.tlsFiles,
		"identity":        func(n node) { set(&s.IdentityMode)(n.oneOf("direct", "hub")) },
		"strict":          func(n node) { set(&s.Strict)(n.boolean()) },
		"insecure_login":  func(n node) { set(&s.InsecureLogin)(n.boolean()) },
		"hosts":           func(n node) { n.texts("host names", func(at node, text string) { l.host(at, text, &s.Hosts) }) },
		"trusted_proxies": func(n node) { l.networks(n, web.ParseProxy, &s.Proxies) },
		"metrics_from":    func(n node) { l.networks(n, web.ParseNetwork, &s.MetricsFrom) },
		"webhooks":        func(n node) { n.list("webhooks", l.webhook) },
		"spaces":          func(n node) { n.list("Spaces", l.space) },
		"people":          func(n node) { n.list("people", l.person) },
		"admin_groups": func(n node) {
			n.texts("groups", func(at node, text string) { l.adminGroups = append(l.adminGroups, adminGroup{text, at}) })
		},
		"users": l.users,
	}
	maps.Copy(known, l.isolation.commonKeys())
	root.fields("a mapping of settings", known)
}

// set returns a function that stores a value if it was read without a mistake.
func set[T any](into *T) func(T, bool) {
	return func(read T, ok bool) {
		if ok {
			*into = read
		}
	}
}

// setOptional is like set for a pointer, which stays nil if the key is absent or has a mistake.
func setOptional[T any](into **T) func(T, bool) {
	return func(read T, ok bool) {
		if ok {
			*into = &read
		}
	}
}

// path resolves a path relative to the file, so that a folder with Spaces and their configuration can be moved.
func (l *loader) path(n node, into *string) bool {
	text, ok := n.text()
	if !ok {
		return false
	}
	if !filepath.IsAbs(text) {
		text = filepath.Join(l.folder, text)
	}
	*into = text
	return true
}

func (l *loader) address(n node, into *Setting) {
	text, ok := n.scalar() // not text: YAML reads 7860 as a number
	if !ok {
		return
	}
	if err := CheckAddress(text); err != nil {
		n.fail("%v", err)
		return
	}
	*into = n.addressSetting(Loopback(text))
}

// log reads the bounds of the host's log.
func (l *loader) log(n node) {
	n.fields("a mapping with the keys size and keep", map[string]func(node){
		"size": func(at node) {
			parseNode(at, func(text string) (size int64, err error) { return size, parseSize(text, "", minHostLog, &size) }, &l.settings.Log.Size)
		},
		"keep": func(at node) { set(&l.settings.Log.Keep)(at.keep()) },
	})
}

func (l *loader) host(n node, text string, into *[]string) {
	name, err := ParseHostName(text)
	if err != nil {
		n.fail("%v", err)
		return
	}
	*into = append(*into, name)
}

func (l *loader) networks(n node, parse func(string) (netip.Prefix, error), into *[]netip.Prefix) {
	n.texts("networks", func(at node, text string) {
		network, err := parse(text)
		if err != nil {
			at.fail("%.60q: %v", text, err)
			return
		}
		*into = append(*into, network)
	})
}

// preset reads the name of a preset or the path of a file of tiers.
func (l *loader) preset(n node) {
	text, ok := n.scalar()
	if !ok {
		return
	}
	if isTierFile(text) && !filepath.IsAbs(text) {
		text = filepath.Join(l.folder, text)
	}
	if isTierFile(text) {
		l.addSource(text)
	}
	_, err := ReadTiers(text)
	var wrong *FileError
	switch {
	case errors.As(err, &wrong):
		l.problems = append(l.problems, wrong.Problems...)
	case err != nil:
		n.fail("%v", err)
	}
	l.settings.Preset = n.setting(text)
}

// tiers reads the file's own tiers. A tier with the name of a preset's tier replaces it.
func (l *loader) tiers(n node) { l.settings.OwnTiers = n.tiers() }

func (l *loader) warn(n node, format string, args ...any) {
	l.warnings = append(l.warnings, Problem{l.file, n.line, n.path, fmt.Sprintf(format, args...)}.String())
}
