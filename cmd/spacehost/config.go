package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"spacehost/gpu"
	"spacehost/internal/people"
	"spacehost/internal/space"
	"spacehost/internal/web"
	"spacehost/quota"
)

const (
	maxConfig = 1 << 20
	maxSecret = 64 << 10
	// mostAtOnce is more than any machine has places.
	mostAtOnce = 1000
)

// config reads the file of `spacehost serve`; docs/serve.md describes it. Every mistake is said with its line, all of
// them at once; what one key needs of another is checked when all are read.
type config struct {
	*reader
	folder   string // relative paths begin here
	open     bool   // others than the owner may read the file
	warnings []string
	settings settings
	spaces   []spaceEntry
	people   []personEntry
}

// spaceEntry is a Space with where it stands.
type spaceEntry struct {
	spaceSettings
	at, nameAt, addrAt, hostAt, membersAt value // where it and its keys stand; a value without reader: nowhere
	wanted                                []namedAt
}

type personEntry struct {
	people.Declared
	at, tierAt value
}

type namedAt struct {
	value
	name string
}

// loadConfig returns what a file asks for, with warnings for its author. Errors: *configError.
func loadConfig(path string) (s settings, warnings []string, err error) {
	c := &config{reader: &reader{file: path}}
	data, ok := c.readFile(path)
	if ok {
		var root value
		if root, ok = c.parseYAML(data); ok {
			c.defaults()
			c.top(root)
			c.together(root)
		}
	}
	return c.settings, c.warnings, c.err()
}

func (c *config) readFile(path string) ([]byte, bool) {
	at := value{r: c.reader, line: 1}
	abs, err := filepath.Abs(path)
	if err == nil {
		c.folder = filepath.Dir(abs)
		c.open = isOpen(path)
	}
	data, err := readSmall(path, maxConfig)
	if err != nil {
		at.fail("cannot be read: %v; give the file's path with --config", reasonOf(err))
		return nil, false
	}
	return data, true
}

// readSmall refuses what is no file: a pipe would be waited for.
func readSmall(path string, most int64) ([]byte, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, errors.New("it is not a file")
	case info.Size() > most:
		return nil, fmt.Errorf("it has more than %d KiB", most>>10)
	}
	return os.ReadFile(path)
}

// reasonOf drops the path, which the sentence has already.
func reasonOf(err error) error {
	var path *os.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

// isOpen reports whether everybody on the machine may read a file.
func isOpen(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().Perm()&0o004 != 0
}

func (c *config) defaults() {
	c.settings = settings{
		file:    c.file,
		address: setting{"127.0.0.1:7860", "`address` in " + c.file}, console: setting{"127.0.0.1:7870", "`console` in " + c.file},
		gpus: setting{"auto", c.file + ": gpus"}, hardware: setting{autoHardware, c.file + ": gpus.hardware"}, preset: setting{"2026-04", c.file + ": quota"},
		localTier: setting{"unauthenticated", c.file + ": tiers"}, share: 1, endUninvited: true, queueTimeout: 60 * time.Second, warmFor: 5 * time.Minute, keep: usualKeep,
	}
}

// from is a setting as the file has it.
func (v value) from(text string) setting {
	return setting{text, fmt.Sprintf("%s:%d: %s", v.r.file, v.line, v.path)}
}

// listener is where to change an address.
func (v value) listener(text string) setting {
	return setting{text, fmt.Sprintf("`%s` in %s:%d", v.path, v.r.file, v.line)}
}

func (c *config) top(root value) {
	s := &c.settings
	root.fields("the configuration", map[string]func(value){
		"state":           func(v value) { c.path(v, &s.state) },
		"gpus":            c.gpus,
		"quota":           c.preset,
		"tiers":           c.tiers,
		"queue_timeout":   func(v value) { set(&s.queueTimeout)(v.span(time.Second, 24*time.Hour)) },
		"warm":            func(v value) { set(&s.warmFor)(v.span(0, 24*time.Hour)) },
		"keep":            func(v value) { set(&s.keep)(v.keep()) },
		"address":         func(v value) { c.address(v, &s.address) },
		"console":         func(v value) { c.address(v, &s.console) },
		"by_name":         func(v value) { set(&s.byName)(v.flag()) },
		"console_url":     c.consoleURL,
		"identity":        func(v value) { set(&s.mode)(v.one("direct", "hub")) },
		"insecure_login":  func(v value) { set(&s.insecureLogin)(v.flag()) },
		"hosts":           func(v value) { v.texts("host names", func(at value, text string) { c.host(at, text, &s.hosts) }) },
		"trusted_proxies": func(v value) { c.networks(v, web.ParseProxy, &s.proxies) },
		"metrics_from":    func(v value) { c.networks(v, web.ParseNetwork, &s.metricsFrom) },
		"spaces":          func(v value) { v.list("Spaces", c.space) },
		"people":          func(v value) { v.list("people", c.person) },
	})
}

// set keeps what was read without a mistake.
func set[T any](into *T) func(T, bool) {
	return func(read T, ok bool) {
		if ok {
			*into = read
		}
	}
}

// own keeps what was read without a mistake, and that it was said at all.
func own[T any](into **T) func(T, bool) {
	return func(read T, ok bool) {
		if ok {
			*into = &read
		}
	}
}

// path is relative to the file, so that a folder with Spaces and their configuration can be moved.
func (c *config) path(v value, into *string) bool {
	text, ok := v.text()
	if !ok {
		return false
	}
	if !filepath.IsAbs(text) {
		text = filepath.Join(c.folder, text)
	}
	*into = text
	return true
}

func (c *config) address(v value, into *setting) {
	text, ok := v.plain() // 7860 is a number to YAML
	if !ok {
		return
	}
	if err := checkAddress(text); err != nil {
		v.fail("%v", err)
		return
	}
	*into = v.listener(loopback(text))
}

func (c *config) consoleURL(v value) {
	text, ok := v.text()
	if !ok {
		return
	}
	origin, err := originOf(text)
	if err != nil {
		v.fail("%v", err)
		return
	}
	c.settings.consoleURL = origin
}

func (c *config) host(v value, text string, into *[]string) {
	name, err := hostOf(text)
	if err != nil {
		v.fail("%v", err)
		return
	}
	*into = append(*into, name)
}

func (c *config) networks(v value, parse func(string) (netip.Prefix, error), into *[]netip.Prefix) {
	v.texts("networks", func(at value, text string) {
		network, err := parse(text)
		if err != nil {
			at.fail("%.60q: %v", text, err)
			return
		}
		*into = append(*into, network)
	})
}

// gpus is a word for the machine's GPUs, or a mapping with the share of a Device that a size of call takes.
func (c *config) gpus(v value) {
	if len(v.node.Content) == 0 {
		c.machine(v)
		return
	}
	v.fields("auto, none, mock:2xH200, or a mapping", map[string]func(value){
		"machine": c.machine, "large": c.share,
		"uninvited": c.uninvited,
		"hardware":  c.hardware,
		"per_space": func(at value) { set(&c.settings.perSpace)(at.number(0, mostAtOnce)) },
	})
}

func (c *config) machine(v value) {
	text, ok := v.plain()
	if !ok {
		return
	}
	if err := checkGPUs(text); err != nil {
		v.fail("%v", err)
		return
	}
	c.settings.gpus = v.from(text)
}

// uninvited says what becomes of a Space's process that uses a GPU outside any Lease.
func (c *config) uninvited(v value) {
	switch text, ok := v.plain(); {
	case !ok:
	case text == "end", text == "show":
		c.settings.endUninvited = text == "end"
	default:
		v.fail("%.40q is not known here: say end or show", text)
	}
}

func (c *config) hardware(v value) {
	text, ok := v.text()
	if !ok {
		return
	}
	if err := checkHardware(text); err != nil {
		v.fail("%v", err)
		return
	}
	c.settings.hardware = v.from(text)
}

func (c *config) share(v value) {
	text, ok := v.plain()
	if !ok {
		return
	}
	share, err := gpu.ParseShare(text)
	if err != nil {
		v.fail("%v", err)
		return
	}
	c.settings.share = share
}

// preset is the name of one, or a file of tiers.
func (c *config) preset(v value) {
	text, ok := v.plain()
	if !ok {
		return
	}
	if isQuotaFile(text) && !filepath.IsAbs(text) {
		text = filepath.Join(c.folder, text)
	}
	_, err := readQuota(text)
	var wrong *configError
	switch {
	case errors.As(err, &wrong):
		c.problems = append(c.problems, wrong.problems...)
	case err != nil:
		v.fail("%v", err)
	}
	c.settings.preset = v.from(text)
}

// tiers are the file's own. One with the name of a preset's takes its place.
func (c *config) tiers(v value) { c.settings.ownTiers = v.tiers() }

var spaceNameRule = regexp.MustCompile(`^[a-z0-9_]([a-z0-9._-]{0,94}[a-z0-9_])?$`)

func (c *config) space(v value) {
	s := spaceEntry{at: v, spaceSettings: spaceSettings{visibility: public, variables: map[string]string{}, secrets: map[string]string{}}}
	folder := false
	v.fields("a Space", map[string]func(value){
		"folder":     func(at value) { folder = true; c.spaceFolder(at, &s.dir) },
		"name":       func(at value) { s.nameAt = at; c.spaceName(at, &s.name) },
		"address":    func(at value) { s.addrAt = at; c.address(at, &s.addr) },
		"host":       func(at value) { s.hostAt = at; c.spaceHost(at, &s.host) },
		"visibility": func(at value) { c.visibility(at, &s.visibility) },
		"members":    func(at value) { s.membersAt = at; c.memberNames(at, &s) },
		"python":     func(at value) { c.interpreter(at, &s.python) },
		"concurrency": func(at value) {
			if n, ok := at.number(0, mostAtOnce); ok {
				s.concurrency = &n
			}
		},
		"variables": func(at value) { c.variables(at, s.variables) },
		"secrets":   func(at value) { c.secrets(at, s.secrets) },
	})
	if v.node.Kind != yaml.MappingNode {
		return
	}
	if !folder {
		v.fail("says no `folder`: the one that holds the Space's app.py")
	}
	c.spaces = append(c.spaces, s)
}

func (c *config) spaceFolder(v value, into *string) {
	if !c.path(v, into) {
		return
	}
	if info, err := os.Stat(*into); err != nil || !info.IsDir() {
		v.fail("%s is not a folder; relative ones begin at %s", *into, c.folder)
	}
}

func (c *config) spaceName(v value, into *string) {
	text, ok := v.text()
	if ok && !spaceNameRule.MatchString(text) {
		v.fail("%.60q cannot be a Space's name: give 1 to 96 of a-z, 0-9, '.', '_' and '-'", text)
		return
	}
	set(into)(text, ok)
}

func (c *config) spaceHost(v value, into *string) {
	var names []string
	if text, ok := v.text(); ok {
		c.host(v, text, &names)
	}
	if len(names) > 0 {
		*into = names[0]
	}
}

func (c *config) visibility(v value, into *visibility) {
	if text, ok := v.one(string(public), string(protected), string(private)); ok {
		*into = visibility(text)
	} else {
		*into = private // until it is corrected
	}
}

func (c *config) memberNames(v value, s *spaceEntry) {
	v.texts("people's names", func(at value, name string) { s.wanted = append(s.wanted, namedAt{at, name}) })
}

func (c *config) interpreter(v value, into *string) {
	if !c.path(v, into) {
		return
	}
	if info, err := os.Stat(*into); err != nil || info.IsDir() || info.Mode().Perm()&0o111 == 0 {
		v.fail("%s is not a program; give the path of a Python interpreter with gradio and spaces in it", *into)
	}
}

var variableRule = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// checkVariable refuses a name that cannot stand in an environment.
func checkVariable(name string) error {
	if !variableRule.MatchString(name) {
		return errors.New("cannot be the name of a variable: letters, digits and '_', no digit first")
	}
	return nil
}

// named calls each for the names of a mapping that can stand in an environment.
func named(v value, what string, each func(name string, at value)) {
	v.table("a mapping of "+what, func(name string, at value) {
		if err := checkVariable(name); err != nil {
			at.fail("%v", err)
			return
		}
		each(name, at)
	})
}

func (c *config) variables(v value, into map[string]string) {
	named(v, "Variables", func(name string, at value) {
		if text, ok := at.plain(); ok {
			c.keep(at, into, name, text)
		}
	})
}

// keep takes a value for a process's environment, which ends at a NUL.
func (c *config) keep(at value, into map[string]string, name, text string) {
	if strings.ContainsRune(text, 0) {
		at.fail("has a NUL byte in it, which no variable can hold")
		return
	}
	into[name] = text
}

// secrets come from the host's environment or a file, so that this file can be kept with others.
func (c *config) secrets(v value, into map[string]string) {
	named(v, "Secrets", func(name string, at value) {
		if len(at.node.Content) == 0 {
			c.inlineSecret(at, into, name)
			return
		}
		if len(at.node.Content) > 2 {
			at.fail("has more than one source: say either `env` or `file`")
			return
		}
		at.fields("a Secret: {env: NAME} or {file: PATH}", map[string]func(value){
			"env":  func(from value) { c.secretOfEnv(from, into, name) },
			"file": func(from value) { c.secretOfFile(from, into, name) },
		})
	})
}

func (c *config) inlineSecret(v value, into map[string]string, name string) {
	text, ok := v.plain()
	if !ok {
		return
	}
	if c.open {
		c.warn(v, "this Secret stands in a file that everybody on this machine may read: chmod o-r %s, or say {env: NAME} or {file: PATH}", c.file)
	}
	c.keep(v, into, name, text)
}

func (c *config) secretOfEnv(v value, into map[string]string, name string) {
	variable, ok := v.text()
	if !ok {
		return
	}
	text, set := os.LookupEnv(variable)
	if !set {
		v.fail("the variable %s is not set where spacehost is started", variable)
		return
	}
	c.keep(v, into, name, text)
}

func (c *config) secretOfFile(v value, into map[string]string, name string) {
	var path string
	if !c.path(v, &path) {
		return
	}
	data, err := readSmall(path, maxSecret)
	if err != nil {
		v.fail("%s cannot be read: %v", path, reasonOf(err))
		return
	}
	if isOpen(path) {
		c.warn(v, "everybody on this machine may read this Secret: chmod o-r %s", path)
	}
	c.keep(v, into, name, strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r"))
}

func (c *config) warn(v value, format string, args ...any) {
	c.warnings = append(c.warnings, problem{c.file, v.line, v.path, fmt.Sprintf(format, args...)}.String())
}

func (c *config) person(v value) {
	p := personEntry{at: v, tierAt: v}
	p.Tier = "free"
	v.fields("a person: name, tier, tokens, quota, longest, priority, concurrency", map[string]func(value){
		"name":        func(at value) { p.at = at; set(&p.Name)(at.text()) },
		"tier":        func(at value) { p.tierAt = at; set(&p.Tier)(at.text()) },
		"quota":       func(at value) { own(&p.Overrides.Quota)(at.span(time.Second, quota.MostGrant)) },
		"longest":     func(at value) { own(&p.Overrides.Longest)(at.span(time.Second, quota.MostGrant)) },
		"priority":    func(at value) { own(&p.Overrides.Priority)(at.number(0, maxRank)) },
		"concurrency": func(at value) { own(&p.Overrides.Concurrency)(at.number(0, mostAtOnce)) },
		"tokens": func(at value) {
			at.texts("hashes of tokens", func(at value, text string) { c.token(at, text, &p) })
		},
	})
	if v.node.Kind != yaml.MappingNode {
		return
	}
	switch {
	case p.Name == "" && p.at == v:
		v.fail("says no `name`")
	case p.Name != "" && people.CheckName(p.Name) != nil:
		p.at.fail("%v", people.CheckName(p.Name))
	}
	if len(p.Tokens) > people.MaxTokens {
		v.fail("has %d tokens, and %d is the most", len(p.Tokens), people.MaxTokens)
	}
	c.people = append(c.people, p)
}

func (c *config) token(v value, text string, p *personEntry) {
	text = strings.ToLower(text)
	if err := people.CheckHash(text); err != nil {
		v.fail("%v", err)
		return
	}
	for _, other := range append(slices.Clone(c.people), *p) {
		if slices.Contains(other.Tokens, text) {
			v.fail("this token stands twice: a token is one person's, once")
			return
		}
	}
	p.Tokens = append(p.Tokens, text)
}

// together checks what one part of the file says of another.
func (c *config) together(root value) {
	if len(c.spaces) == 0 && len(c.problems) == 0 {
		root.fail("there are no Spaces: `spaces` needs one at least")
	}
	names, taken := c.checkPeople(), c.takenByHost(root)
	for i := range c.spaces {
		c.checkSpace(&c.spaces[i], names, taken)
		c.settings.spaces = append(c.settings.spaces, c.spaces[i].spaceSettings)
	}
}

// checkPeople returns everybody's name.
func (c *config) checkPeople() (names []string) {
	presets, noPreset := readQuota(c.settings.preset.value)
	tiers := presets.With(c.settings.ownTiers...)
	for _, p := range c.people {
		if _, err := tiers.Get(p.Tier); err != nil && noPreset == nil { // without one, each tier would be a mistake
			p.tierAt.fail("%v", err)
		}
		if slices.Contains(names, p.Name) {
			p.at.fail("%s stands twice: a person is one entry, with all their tokens", p.Name)
		}
		names = append(names, p.Name)
		c.settings.people = append(c.settings.people, p.Declared)
	}
	return names
}

// taken says by which key an address or a name is used already.
type taken struct {
	names     map[string]string
	addresses []setting // source is the key
}

// takenByHost is what the host itself uses.
func (c *config) takenByHost(root value) *taken {
	t := &taken{names: map[string]string{}}
	for _, host := range c.settings.hosts {
		t.take("host "+host, "hosts")
	}
	t.takeAddress(c.settings.console.value, "console")
	if slices.ContainsFunc(c.spaces, spaceEntry.shares) {
		if console, twice := t.takeAddress(c.settings.address.value, "address"); twice {
			root.fail("`address` %s and `console` %s are one: give one of them another port", c.settings.address.value, console.value)
		}
	}
	return t
}

// shares reports whether it answers at the common address.
func (s spaceEntry) shares() bool { return s.addrAt.r == nil && s.hostAt.r != nil }

func (t *taken) take(name, key string) (other string, twice bool) {
	if other, twice = t.names[name]; !twice {
		t.names[name] = key
	}
	return other, twice
}

func (t *taken) takeAddress(addr, key string) (other setting, twice bool) {
	if i := slices.IndexFunc(t.addresses, func(s setting) bool { return collide(s.value, addr) }); i >= 0 {
		return t.addresses[i], true
	}
	t.addresses = append(t.addresses, setting{addr, key})
	return setting{}, false
}

func (c *config) checkSpace(s *spaceEntry, people []string, taken *taken) {
	if s.addrAt.r == nil && s.hostAt.r == nil {
		s.at.fail("says neither `address` (its own, as 127.0.0.1:7861) nor `host` (its name at the common `address`)")
	}
	if s.addr.value != "" {
		if other, twice := taken.takeAddress(s.addr.value, s.at.path); twice {
			s.at.fail("its address %s is that of %s as well, %s: give one of them another port", s.addr.value, other.source, other.value)
		}
	}
	if s.host != "" {
		if other, twice := taken.take("host "+s.host, s.at.path); twice {
			s.hostAt.fail("%s is a name of %s as well", s.host, other)
		}
	}
	if name := s.effectiveName(); name != "" {
		if other, twice := taken.take("space "+name, s.at.path); twice {
			s.at.fail("its name %s is that of %s as well: give one of them another `name`", name, other)
		}
	}
	c.checkMembers(s, people)
}

// effectiveName is its own, or its folder's; empty where what the file says is none.
func (s *spaceEntry) effectiveName() string {
	if s.nameAt.r != nil || s.dir == "" {
		return s.name
	}
	return space.NameOf(s.dir)
}

// checkMembers makes the members of a private Space; where none are named, everybody whom the file names is one.
func (c *config) checkMembers(s *spaceEntry, people []string) {
	named := s.membersAt.r != nil
	if s.visibility != private {
		if named {
			s.membersAt.fail("only a private Space has members: say `visibility: private`, or remove them")
		}
		return
	}
	for _, member := range s.wanted {
		if !slices.Contains(people, member.name) {
			member.fail("%.70q is nobody under `people`; %s", member.name, meant(member.name, people))
			continue
		}
		s.members = append(s.members, member.name)
	}
	if len(s.wanted) == 0 {
		s.members = people
	}
	if len(people) == 0 {
		c.warn(s.at, "nobody can come in: the Space is private, and there are no `people`")
	}
}
