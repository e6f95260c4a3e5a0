package config

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"spacehost/internal/people"
	"spacehost/internal/space"
	"spacehost/quota"
)

// Effect is what a change of a running host's configuration needs.
type Effect string

// The effects, from the least to the most.
const (
	AtOnce  Effect = "at once"
	Restart Effect = "restart" // the Space starts again
	NewHost Effect = "host"    // the host must be restarted; a reload refuses the change
)

// Verb is the kind of a Change.
type Verb string

// The verbs.
const (
	Added   Verb = "added"
	Removed Verb = "removed"
	Changed Verb = "changed"
)

// Change is one difference between two configurations. It never contains the value of a Secret, of a Variable, of a token
// or of a URL of a webhook.
type Change struct {
	Subject string // space, person, webhook, pool, tier or host
	Name    string // of the Space, the person, the webhook, the pool or the tier; empty for the host
	Verb    Verb
	Key     string // the key that changed, as in the file; empty if the subject was added or removed
	From    string // the values, as text; both are empty if they are not shown
	To      string
	Effect  Effect
}

// String returns the change as a line for an operator.
func (c Change) String() string {
	text := map[Verb]string{Added: "+ ", Removed: "- ", Changed: "~ "}[c.Verb] + c.Subject
	if c.Name != "" {
		text += " " + c.Name
	}
	if c.Key != "" {
		text += ": " + c.Key
	}
	switch {
	case c.Verb == Changed && c.From == "" && c.To == "":
		text += " changed"
	case c.Verb == Changed:
		text += fmt.Sprintf(" %s -> %s", cmp.Or(c.From, "none"), cmp.Or(c.To, "none"))
	case c.To != "":
		text += " (" + c.To + ")"
	}
	if c.Verb != Changed || c.Subject != "space" && c.Effect != NewHost {
		return text
	}
	return text + map[Effect]string{AtOnce: "", Restart: " (the Space restarts)", NewHost: " (needs a restart of the host)"}[c.Effect]
}

// EffectiveName returns the Space's name, which defaults to its folder's.
func (s SpaceSettings) EffectiveName() string { return cmp.Or(s.Name, space.NameOf(s.Dir)) }

// Tiers returns the tiers of the preset together with the file's own ones. Load has checked the preset, so an error means
// that a file of tiers has changed since.
func (s Settings) Tiers() (quota.Tiers, error) {
	presets, err := ReadTiers(s.Preset.Value)
	return presets.With(s.OwnTiers...), err
}

// Difference lists what a file changes of a running host, in the order host, tiers, people, webhooks, pools, Spaces. Places and the order of
// entries are no difference. before and after are the tiers of both.
func Difference(from, to Settings, before, after quota.Tiers) (all []Change) {
	all = append(all, hostChanges(from, to)...)
	all = append(all, tierChanges(before, after)...)
	all = append(all, peopleChanges(from.People, to.People)...)
	all = append(all, webhookChanges(from.Webhooks, to.Webhooks)...)
	all = append(all, poolChanges(from.Pools, to.Pools)...)
	return append(all, spaceChanges(from.Spaces, to.Spaces)...)
}

// field is one key of a subject, with its value as comparable text.
type field[T any] struct {
	key    string
	effect Effect
	text   func(T) string
	hidden bool // the text is compared, and not shown
}

// compare returns a Change for each field whose text differs.
func compare[T any](subject, name string, fields []field[T], from, to T) (all []Change) {
	for _, f := range fields {
		before, after := f.text(from), f.text(to)
		if before == after {
			continue
		}
		if f.hidden {
			before, after = "", ""
		}
		all = append(all, Change{subject, name, Changed, f.key, before, after, f.effect})
	}
	return all
}

// hostFields are the keys of the top level. Defaults of Spaces are part of each Space.
var hostFields = []field[Settings]{
	{"state", NewHost, func(s Settings) string { return s.State }, false},
	{"gpus.machine", NewHost, func(s Settings) string { return cmp.Or(list(s.OnlyGPUs), s.GPUs.Value) }, false},
	{"gpus.large", NewHost, func(s Settings) string { return s.Share.String() }, false},
	{"gpus.hardware", NewHost, func(s Settings) string { return s.Hardware.Value }, false},
	{"gpus.unleased", NewHost, func(s Settings) string { return map[bool]string{false: "show", true: "end"}[s.EndUnleased] }, false},
	{"gpus.per_space", AtOnce, func(s Settings) string { return strconv.Itoa(s.PerSpace) }, false},
	{"quota", AtOnce, func(s Settings) string { return s.Preset.Value }, false},
	{"queue_timeout", NewHost, func(s Settings) string { return durationText(s.QueueTimeout) }, false},
	{"warm", NewHost, func(s Settings) string { return durationText(s.WarmFor) }, false},
	{"drain", AtOnce, func(s Settings) string { return durationText(s.Drain) }, false},
	{"agent", NewHost, func(s Settings) string { return string(s.Agent) }, false},
	{"orphan_after", NewHost, orphanAfterText, false},
	{"cluster.listen", NewHost, func(s Settings) string { return s.Cluster.Listen.Value }, false},
	{"keep", AtOnce, func(s Settings) string { return keepText(s.Keep) }, false},
	{"total_limits", AtOnce, func(s Settings) string { return s.TotalLimits.String() }, false},
	{"log", NewHost, logText, false},
	{"address", NewHost, sharedAddress, false},
	{"console", NewHost, func(s Settings) string { return s.Console.Value }, false},
	{"console_url", NewHost, func(s Settings) string { return s.ConsoleURL.String() }, false},
	{"tls", NewHost, func(s Settings) string { return map[bool]string{true: "on", false: "off"}[s.TLS.IsSet()] }, false},
	{"tls.cert", AtOnce, func(s Settings) string { return s.TLS.Cert }, false},
	{"tls.key", AtOnce, func(s Settings) string { return s.TLS.Key }, false},
	{"by_name", NewHost, func(s Settings) string { return strconv.FormatBool(s.ByName) }, false},
	{"identity", NewHost, func(s Settings) string { return s.IdentityMode }, false},
	{"strict", NewHost, func(s Settings) string { return strconv.FormatBool(s.Strict) }, false},
	{"insecure_login", NewHost, func(s Settings) string { return strconv.FormatBool(s.InsecureLogin) }, false},
	{"hosts", AtOnce, func(s Settings) string { return list(s.Hosts) }, false},
	{"trusted_proxies", NewHost, func(s Settings) string { return list(texts(s.Proxies)) }, false},
	{"metrics_from", NewHost, func(s Settings) string { return list(texts(s.MetricsFrom)) }, false},
	{"users", NewHost, usersText, false},
	{"admin_groups", AtOnce, func(s Settings) string { return list(sorted(s.AdminGroups)) }, false},
}

func usersText(s Settings) string {
	if s.Users == (UIDs{}) {
		return ""
	}
	return s.Users.String()
}

// sharedAddress returns the top-level address if a Space is served there.
func sharedAddress(s Settings) string {
	if slices.ContainsFunc(s.Spaces, func(one SpaceSettings) bool { return one.Addr.Value == "" }) {
		return s.Address.Value
	}
	return ""
}

// hostChanges leaves out an `address` that comes into use or out of use with its Spaces: it can be taken while the host runs.
func hostChanges(from, to Settings) []Change {
	all := compare("host", "", hostFields, from, to)
	return slices.DeleteFunc(all, func(c Change) bool { return c.Key == "address" && (c.From == "" || c.To == "") })
}

// spaceFields are the keys of a Space, except mappings.
var spaceFields = []field[SpaceSettings]{
	{"folder", Restart, func(s SpaceSettings) string { return s.Dir }, false},
	{"address", Restart, func(s SpaceSettings) string { return s.Addr.Value }, false},
	{"host", Restart, func(s SpaceSettings) string { return s.Host }, false},
	{"url", Restart, func(s SpaceSettings) string { return s.URL.String() }, false},
	{"path", AtOnce, ownSubPath, false},
	{"visibility", AtOnce, func(s SpaceSettings) string { return string(s.Visibility) }, false},
	{"members", AtOnce, membersText, false},
	{"concurrency", AtOnce, func(s SpaceSettings) string { return optional(s.Concurrency, strconv.Itoa) }, false},
	{"liveness", AtOnce, func(s SpaceSettings) string { return s.Liveness.String() }, false},
	{"bar", AtOnce, func(s SpaceSettings) string { return strconv.FormatBool(s.Bar) }, false},
	{"python", Restart, func(s SpaceSettings) string { return s.Python }, false},
	{"on", Restart, onText, false},
	{"isolation", NewHost, func(s SpaceSettings) string { return s.Isolation.String() }, false},
	{"gpu_nodes", NewHost, func(s SpaceSettings) string {
		return map[bool]string{false: "always", true: "lease"}[s.NodesByLease]
	}, false},
	{"egress", Restart, func(s SpaceSettings) string { return s.Egress.String() }, false},
	{"reach", Restart, func(s SpaceSettings) string { return list(sorted(s.Reach)) }, false},
	{"limits", Restart, func(s SpaceSettings) string { return s.Limits.String() }, false},
	{"source", Restart, func(s SpaceSettings) string { return s.SourceMode.String() }, false},
	{"data", Restart, func(s SpaceSettings) string { return cmp.Or(s.Data.Path, strconv.FormatBool(s.Data.Keep)) }, false},
	{"cache", Restart, func(s SpaceSettings) string { return map[bool]string{false: "shared", true: "private"}[s.PrivateCache] }, false},
	{"mounts", Restart, func(s SpaceSettings) string { return list(sorted(s.Mounts)) }, false},
	{"calls", Restart, callsText, false},
}

func spaceChanges(from, to []SpaceSettings) (all []Change) {
	before, after := byName(from, SpaceSettings.EffectiveName), byName(to, SpaceSettings.EffectiveName)
	for _, name := range union(before, after) {
		old, was := before[name]
		now, is := after[name]
		switch {
		case !is:
			all = append(all, Change{"space", name, Removed, "", "", "", AtOnce})
		case !was:
			all = append(all, Change{"space", name, Added, "", "", now.Dir, AtOnce})
		default:
			all = append(all, compare("space", name, spaceFields, old, now)...)
			all = append(all, mappingChanges(name, "variables", old.Variables, now.Variables)...)
			all = append(all, mappingChanges(name, "secrets", old.Secrets, now.Secrets)...)
		}
	}
	return all
}

// WithAtOnce returns the settings with those of next that need no new start of the Space: the keys of effect AtOnce. The sub-path
// belongs to a `url`, which needs one.
func (s SpaceSettings) WithAtOnce(next SpaceSettings) SpaceSettings {
	if s.URL == next.URL {
		s.SubPath = next.SubPath
	}
	s.Visibility, s.Members = next.Visibility, next.Members
	s.Concurrency, s.Liveness, s.Bar = next.Concurrency, next.Liveness, next.Bar
	return s
}

// ChangedKeys returns the keys of the Space that another version of its settings changes, such as python or variables.NAME.
func (s SpaceSettings) ChangedKeys(next SpaceSettings) (keys []string) {
	for _, c := range spaceChanges([]SpaceSettings{s}, []SpaceSettings{next}) {
		keys = append(keys, c.Key)
	}
	return keys
}

// mappingChanges names the Variables or Secrets that differ, without their values.
func mappingChanges(space, key string, from, to map[string]string) (all []Change) {
	for _, name := range union(from, to) {
		old, was := from[name]
		now, is := to[name]
		c := Change{"space", space, Changed, key + "." + name, "", "", Restart}
		switch {
		case was && is && old == now:
			continue
		case !was:
			c.From, c.To = "none", "set"
		case !is:
			c.From, c.To = "set", "none"
		}
		all = append(all, c)
	}
	return all
}

var tierFields = []field[quota.Tier]{
	{"quota", AtOnce, func(t quota.Tier) string { return durationText(t.Quota) }, false},
	{"longest", AtOnce, func(t quota.Tier) string { return durationText(t.Longest) }, false},
	{"unlimited", AtOnce, func(t quota.Tier) string { return strconv.FormatBool(t.Unlimited) }, false},
	{"runs", AtOnce, func(t quota.Tier) string { return strconv.Itoa(t.Runs) }, false},
	{"priority", AtOnce, func(t quota.Tier) string { return strconv.Itoa(t.Priority) }, false},
	{"concurrency", AtOnce, func(t quota.Tier) string { return strconv.Itoa(t.Concurrency) }, false},
}

func tierChanges(from, to quota.Tiers) (all []Change) {
	name := func(t quota.Tier) string { return t.Name }
	return entryChanges("tier", byName(from.All, name), byName(to.All, name), tierFields, tierText)
}

func tierText(t quota.Tier) string {
	if t.Unlimited {
		return "unlimited"
	}
	return durationText(t.Quota)
}

var personFields = []field[people.Declared]{
	{"tier", AtOnce, func(p people.Declared) string { return p.Tier }, false},
	{"tokens", AtOnce, func(p people.Declared) string { return list(sorted(p.Tokens)) }, true},
	{"group", AtOnce, func(p people.Declared) string { return p.Group }, false},
	{"admin", AtOnce, func(p people.Declared) string { return strconv.FormatBool(p.Admin) }, false},
	{"quota", AtOnce, func(p people.Declared) string { return optional(p.Overrides.Quota, durationText) }, false},
	{"longest", AtOnce, func(p people.Declared) string { return optional(p.Overrides.Longest, durationText) }, false},
	{"runs", AtOnce, func(p people.Declared) string { return optional(p.Overrides.Runs, strconv.Itoa) }, false},
	{"priority", AtOnce, func(p people.Declared) string { return optional(p.Overrides.Priority, strconv.Itoa) }, false},
	{"concurrency", AtOnce, func(p people.Declared) string { return optional(p.Overrides.Concurrency, strconv.Itoa) }, false},
}

// peopleChanges counts the tokens that come and go: their hashes are not shown.
func peopleChanges(from, to []people.Declared) []Change {
	name := func(p people.Declared) string { return p.Name }
	before, after := byName(from, name), byName(to, name)
	all := entryChanges("person", before, after, personFields, func(p people.Declared) string { return p.Tier })
	for i, c := range all {
		if c.Key == "tokens" {
			old, now := before[c.Name].Tokens, after[c.Name].Tokens
			all[i].From, all[i].To = tokenCount(old, now, "removed"), tokenCount(now, old, "added")
		}
	}
	return all
}

// tokenCount describes the tokens that only the first list has.
func tokenCount(some, others []string, verb string) string {
	n := 0
	for _, token := range some {
		if !slices.Contains(others, token) {
			n++
		}
	}
	return fmt.Sprintf("%d %s", n, verb)
}

func entryChanges[T any](subject string, before, after map[string]T, fields []field[T], summary func(T) string) (all []Change) {
	for _, name := range union(before, after) {
		old, was := before[name]
		now, is := after[name]
		switch {
		case !is:
			all = append(all, Change{subject, name, Removed, "", "", "", AtOnce})
		case !was:
			all = append(all, Change{subject, name, Added, "", "", summary(now), AtOnce})
		default:
			all = append(all, compare(subject, name, fields, old, now)...)
		}
	}
	return all
}

// ownSubPath returns a sub-path that is not part of a `url`.
func ownSubPath(s SpaceSettings) string {
	if s.URL.IsSet() {
		return ""
	}
	return s.SubPath
}

func membersText(s SpaceSettings) string {
	if s.Visibility == Private && s.Members == nil {
		return "all people"
	}
	return list(sorted(s.Members))
}

func callsText(s SpaceSettings) string {
	if s.Calls == nil {
		return "all"
	}
	return list(sorted(s.Calls))
}

func byName[T any](all []T, name func(T) string) map[string]T {
	named := make(map[string]T, len(all))
	for _, one := range all {
		named[name(one)] = one
	}
	return named
}

// union returns the keys of both maps, sorted.
func union[T any](a, b map[string]T) []string {
	all := maps.Clone(a)
	if all == nil {
		all = map[string]T{}
	}
	maps.Copy(all, b)
	return slices.Sorted(maps.Keys(all))
}

func optional[T any](value *T, text func(T) string) string {
	if value == nil {
		return ""
	}
	return text(*value)
}

func texts[T any](all []T) (texts []string) {
	for _, one := range all {
		texts = append(texts, fmt.Sprint(one))
	}
	return texts
}

func sorted[T any](all []T) []string {
	texts := texts(all)
	slices.Sort(texts)
	return texts
}

// durationText returns a duration as the file has it, without the zeros of time.Duration.String.
func durationText(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

func keepText(d time.Duration) string {
	switch day := 24 * time.Hour; {
	case d == 0:
		return "forever"
	case d%day == 0:
		return fmt.Sprintf("%dd", d/day)
	}
	return durationText(d)
}

func logText(s Settings) string {
	log := cmp.Or(s.Log, DefaultLog)
	return "size=" + FormatSize(log.Size) + ",keep=" + keepText(log.Keep)
}

func list(texts []string) string { return strings.Join(texts, ",") }
