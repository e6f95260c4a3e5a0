package config

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

// config reads the file of `spacehost serve`; docs/operator-guide.md describes it. Every mistake is said with its line, all of
// them at once; what one key needs of another is checked when all are read.
type config struct {
	*reader
	folder   string // relative paths begin here
	open     bool   // others than the owner may read the file
	warnings []string
	settings Settings
	spaces   []spaceEntry
	people   []personEntry
}

// spaceEntry is a Space with where it stands.
type spaceEntry struct {
	SpaceSettings
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

// Load returns what a file asks for, with warnings for its author. Errors: *FileError.
func Load(path string) (s Settings, warnings []string, err error) {
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
		at.fail("cannot be read: %v; give the file's path with --config", WithoutPath(err))
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

// WithoutPath returns the reason of a file error alone, for sentences that name the path already.
func WithoutPath(err error) error {
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
	c.settings = Settings{
		File:    c.file,
		Address: Setting{"127.0.0.1:7860", "`address` in " + c.file}, Console: Setting{"127.0.0.1:7870", "`console` in " + c.file},
		GPUs: Setting{"auto", c.file + ": gpus"}, Hardware: Setting{AutoHardware, c.file + ": gpus.hardware"}, Preset: Setting{"2026-04", c.file + ": quota"},
		LocalTier: Setting{"unauthenticated", c.file + ": tiers"}, Share: 1, EndUnleased: true, QueueTimeout: 60 * time.Second, WarmFor: 5 * time.Minute, Keep: DefaultKeep,
	}
}

// from is a setting as the file has it.
func (v value) from(text string) Setting {
	return Setting{text, fmt.Sprintf("%s:%d: %s", v.r.file, v.line, v.path)}
}

// listener is where to change an address.
func (v value) listener(text string) Setting {
	return Setting{text, fmt.Sprintf("`%s` in %s:%d", v.path, v.r.file, v.line)}
}

func (c *config) top(root value) {
	s := &c.settings
	root.fields("the configuration", map[string]func(value){
		"state":           func(v value) { c.path(v, &s.State) },
		"gpus":            c.gpus,
		"quota":           c.preset,
		"tiers":           c.tiers,
		"queue_timeout":   func(v value) { set(&s.QueueTimeout)(v.span(time.Second, 24*time.Hour)) },
		"warm":            func(v value) { set(&s.WarmFor)(v.span(0, 24*time.Hour)) },
		"keep":            func(v value) { set(&s.Keep)(v.keep()) },
		"address":         func(v value) { c.address(v, &s.Address) },
		"console":         func(v value) { c.address(v, &s.Console) },
		"by_name":         func(v value) { set(&s.ByName)(v.flag()) },
		"console_url":     c.consoleURL,
		"identity":        func(v value) { set(&s.IdentityMode)(v.one("direct", "hub")) },
		"insecure_login":  func(v value) { set(&s.InsecureLogin)(v.flag()) },
		"hosts":           func(v value) { v.texts("host names", func(at value, text string) { c.host(at, text, &s.Hosts) }) },
		"trusted_proxies": func(v value) { c.networks(v, web.ParseProxy, &s.Proxies) },
		"metrics_from":    func(v value) { c.networks(v, web.ParseNetwork, &s.MetricsFrom) },
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

func (c *config) address(v value, into *Setting) {
	text, ok := v.plain() // 7860 is a number to YAML
	if !ok {
		return
	}
	if err := CheckAddress(text); err != nil {
		v.fail("%v", err)
		return
	}
	*into = v.listener(Loopback(text))
}

func (c *config) consoleURL(v value) {
	text, ok := v.text()
	if !ok {
		return
	}
	origin, err := ParseOrigin(text)
	if err != nil {
		v.fail("%v", err)
		return
	}
	c.settings.ConsoleURL = origin
}

func (c *config) host(v value, text string, into *[]string) {
	name, err := ParseHostName(text)
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
		"per_space": func(at value) { set(&c.settings.PerSpace)(at.number(0, mostAtOnce)) },
	})
}

func (c *config) machine(v value) {
	text, ok := v.plain()
	if !ok {
		return
	}
	if err := CheckGPUs(text); err != nil {
		v.fail("%v", err)
		return
	}
	c.settings.GPUs = v.from(text)
}

// uninvited says what becomes of a Space's process that uses a GPU outside any Lease.
func (c *config) uninvited(v value) {
	switch text, ok := v.plain(); {
	case !ok:
	case text == "end", text == "show":
		c.settings.EndUnleased = text == "end"
	default:
		v.fail("%.40q is not known here: say end or show", text)
	}
}

func (c *config) hardware(v value) {
	text, ok := v.text()
	if !ok {
		return
	}
	if err := CheckHardware(text); err != nil {
		v.fail("%v", err)
		return
	}
	c.settings.Hardware = v.from(text)
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
	c.settings.Share = share
}

// preset is the name of one, or a file of tiers.
func (c *config) preset(v value) {
	text, ok := v.plain()
	if !ok {
		return
	}
	if isTierFile(text) && !filepath.IsAbs(text) {
		text = filepath.Join(c.folder, text)
	}
	_, err := ReadTiers(text)
	var wrong *FileError
	switch {
	case errors.As(err, &wrong):
		c.problems = append(c.problems, wrong.Problems...)
	case err != nil:
		v.fail("%v", err)
	}
	c.settings.Preset = v.from(text)
}

// tiers are the file's own. One with the name of a preset's takes its place.
func (c *config) tiers(v value) { c.settings.OwnTiers = v.tiers() }

var spaceNameRule = regexp.MustCompile(`^[a-z0-9_]([a-z0-9._-]{0,94}[a-z0-9_])?$`)

func (c *config) space(v value) {
	s := spaceEntry{at: v, SpaceSettings: SpaceSettings{Visibility: Public, Variables: map[string]string{}, Secrets: map[string]string{}}}
	folder := false
	v.fields("a Space", map[string]func(value){
		"folder":     func(at value) { folder = true; c.spaceFolder(at, &s.Dir) },
		"name":       func(at value) { s.nameAt = at; c.spaceName(at, &s.Name) },
		"address":    func(at value) { s.addrAt = at; c.address(at, &s.Addr) },
		"host":       func(at value) { s.hostAt = at; c.spaceHost(at, &s.Host) },
		"visibility": func(at value) { c.visibility(at, &s.Visibility) },
		"members":    func(at value) { s.membersAt = at; c.memberNames(at, &s) },
		"python":     func(at value) { c.interpreter(at, &s.Python) },
		"concurrency": func(at value) {
			if n, ok := at.number(0, mostAtOnce); ok {
				s.Concurrency = &n
			}
		},
		"variables": func(at value) { c.variables(at, s.Variables) },
		"secrets":   func(at value) { c.secrets(at, s.Secrets) },
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

func (c *config) visibility(v value, into *Visibility) {
	if text, ok := v.one(string(Public), string(Protected), string(Private)); ok {
		*into = Visibility(text)
	} else {
		*into = Private // until it is corrected
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

// CheckVariable refuses a name that cannot stand in an environment.
func CheckVariable(name string) error {
	if !variableRule.MatchString(name) {
		return errors.New("cannot be the name of a variable: letters, digits and '_', no digit first")
	}
	return nil
}

// named calls each for the names of a mapping that can stand in an environment.
func named(v value, what string, each func(name string, at value)) {
	v.table("a mapping of "+what, func(name string, at value) {
		if err := CheckVariable(name); err != nil {
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
		v.fail("%s cannot be read: %v", path, WithoutPath(err))
		return
	}
	if isOpen(path) {
		c.warn(v, "everybody on this machine may read this Secret: chmod o-r %s", path)
	}
	c.keep(v, into, name, strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r"))
}

func (c *config) warn(v value, format string, args ...any) {
	c.warnings = append(c.warnings, Problem{c.file, v.line, v.path, fmt.Sprintf(format, args...)}.String())
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
		c.settings.Spaces = append(c.settings.Spaces, c.spaces[i].SpaceSettings)
	}
}

// checkPeople returns everybody's name.
func (c *config) checkPeople() (names []string) {
	presets, noPreset := ReadTiers(c.settings.Preset.Value)
	tiers := presets.With(c.settings.OwnTiers...)
	for _, p := range c.people {
		if _, err := tiers.Get(p.Tier); err != nil && noPreset == nil { // without one, each tier would be a mistake
			p.tierAt.fail("%v", err)
		}
		if slices.Contains(names, p.Name) {
			p.at.fail("%s stands twice: a person is one entry, with all their tokens", p.Name)
		}
		names = append(names, p.Name)
		c.settings.People = append(c.settings.People, p.Declared)
	}
	return names
}

// taken says by which key an address or a name is used already.
type taken struct {
	names     map[string]string
	addresses []Setting // source is the key
}

// takenByHost is what the host itself uses.
func (c *config) takenByHost(root value) *taken {
	t := &taken{names: map[string]string{}}
	for _, host := range c.settings.Hosts {
		t.take("host "+host, "hosts")
	}
	t.takeAddress(c.settings.Console.Value, "console")
	if slices.ContainsFunc(c.spaces, spaceEntry.shares) {
		if console, twice := t.takeAddress(c.settings.Address.Value, "address"); twice {
			root.fail("`address` %s and `console` %s are one: give one of them another port", c.settings.Address.Value, console.Value)
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

func (t *taken) takeAddress(addr, key string) (other Setting, twice bool) {
	if i := slices.IndexFunc(t.addresses, func(s Setting) bool { return Collide(s.Value, addr) }); i >= 0 {
		return t.addresses[i], true
	}
	t.addresses = append(t.addresses, Setting{addr, key})
	return Setting{}, false
}

func (c *config) checkSpace(s *spaceEntry, people []string, taken *taken) {
	if s.addrAt.r == nil && s.hostAt.r == nil {
		s.at.fail("says neither `address` (its own, as 127.0.0.1:7861) nor `host` (its name at the common `address`)")
	}
	if s.Addr.Value != "" {
		if other, twice := taken.takeAddress(s.Addr.Value, s.at.path); twice {
			s.at.fail("its address %s is that of %s as well, %s: give one of them another port", s.Addr.Value, other.Source, other.Value)
		}
	}
	if s.Host != "" {
		if other, twice := taken.take("host "+s.Host, s.at.path); twice {
			s.hostAt.fail("%s is a name of %s as well", s.Host, other)
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
	if s.nameAt.r != nil || s.Dir == "" {
		return s.Name
	}
	return space.NameOf(s.Dir)
}

// checkMembers makes the members of a private Space; where none are named, everybody whom the file names is one.
func (c *config) checkMembers(s *spaceEntry, people []string) {
	named := s.membersAt.r != nil
	if s.Visibility != Private {
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
		s.Members = append(s.Members, member.name)
	}
	if len(s.wanted) == 0 {
		s.Members = people
	}
	if len(people) == 0 {
		c.warn(s.at, "nobody can come in: the Space is private, and there are no `people`")
	}
}
