package config

import (
	"slices"

	"spacehost/internal/people"
	"spacehost/internal/space"
)

// crossCheck checks references and collisions between keys, and completes the settings of Spaces and people.
func (l *loader) crossCheck(root node) {
	if len(l.spaces) == 0 && len(l.problems) == 0 {
		root.fail("no Spaces are defined; add at least one under `spaces`")
	}
	names, claims := l.checkPeople(), l.hostClaims(root)
	spaces := l.spaceNames()
	for i := range l.spaces {
		l.checkSpace(&l.spaces[i], names, claims)
		l.checkIsolation(&l.spaces[i], spaces)
		l.checkOn(&l.spaces[i])
		l.spaces[i].Liveness = l.spaces[i].liveness.or(l.liveness.or(DefaultLiveness))
		if l.spaces[i].Bar = l.bar; l.spaces[i].bar != nil {
			l.spaces[i].Bar = *l.spaces[i].bar
		}
		l.settings.Spaces = append(l.settings.Spaces, l.spaces[i].SpaceSettings)
	}
	l.checkUsers()
	l.checkAgent()
	l.checkPools()
}

// checkPeople returns the names of all people.
func (l *loader) checkPeople() (names []string) {
	presets, noPreset := ReadTiers(l.settings.Preset.Value)
	tiers := presets.With(l.settings.OwnTiers...)
	for _, p := range l.people {
		if _, err := tiers.Get(p.Tier); err != nil && noPreset == nil { // without a preset, every tier would be a mistake
			p.tierAt.fail("%v", err)
		}
		if slices.Contains(names, p.Name) {
			p.nameAt.fail("duplicate person %s; keep one entry, with all tokens of the person", p.Name)
		}
		names = append(names, p.Name)
		l.settings.People = append(l.settings.People, p.Declared)
		if hook := p.webhook; hook != nil && hook.URL != "" {
			hook.Name, hook.Person = "person "+p.Name, p.Name
			l.addWebhook(*hook)
		}
	}
	l.checkAdminGroups()
	return names
}

// claims records which key uses an address, a host name or a Space name.
type claims struct {
	names     map[string]string // "host NAME" or "space NAME" to the key
	addresses []Setting         // the Source is the key
}

// hostClaims returns the names and addresses that the host itself uses.
func (l *loader) hostClaims(root node) *claims {
	c := &claims{names: map[string]string{}}
	for _, host := range l.settings.Hosts {
		c.claim("host "+host, "hosts")
	}
	c.claimAddress(l.settings.Console.Value, "console")
	if listen := l.settings.Cluster.Listen.Value; listen != "" {
		if other, used := c.claimAddress(listen, "cluster.listen"); used {
			root.fail("`cluster.listen` %s collides with `console` %s; choose another port for one of them", listen, other.Value)
		}
	}
	l.claimConsole(c)
	if slices.ContainsFunc(l.spaces, spaceEntry.isAtSharedAddress) {
		if other, used := c.claimAddress(l.settings.Address.Value, "address"); used {
			root.fail("`address` %s collides with `%s` %s; choose another port for one of them", l.settings.Address.Value, other.Source, other.Value)
		}
	}
	return c
}

// isAtSharedAddress reports whether the Space is served at the top-level `address`, under its host name.
func (s spaceEntry) isAtSharedAddress() bool {
	return !s.addrAt.isPresent() && (s.hostAt.isPresent() || s.urlAt.isPresent())
}

// claim records the name for the key. If another key uses the name already, it returns that key and used true.
func (c *claims) claim(name, key string) (other string, used bool) {
	if other, used = c.names[name]; !used {
		c.names[name] = key
	}
	return other, used
}

// claimAddress is like claim for an address. Addresses that Collide count as equal.
func (c *claims) claimAddress(addr, key string) (other Setting, used bool) {
	if i := slices.IndexFunc(c.addresses, func(s Setting) bool { return Collide(s.Value, addr) }); i >= 0 {
		return c.addresses[i], true
	}
	c.addresses = append(c.addresses, Setting{addr, key})
	return Setting{}, false
}

func (l *loader) checkSpace(s *spaceEntry, people []string, claims *claims) {
	if !s.addrAt.isPresent() && !s.isAtSharedAddress() {
		s.at.fail("has neither `address` nor `host` nor `url`; add its own `address`, such as 127.0.0.1:7861, or a `host` name at the shared `address`")
	}
	l.checkURL(s, claims)
	l.warnSharedOrigin(s)
	if s.Addr.Value != "" {
		if other, used := claims.claimAddress(s.Addr.Value, s.at.path); used {
			s.at.fail("address %s is already used by %s (%s); choose another port", s.Addr.Value, other.Source, other.Value)
		}
	}
	if s.Host != "" {
		if other, used := claims.claim("host "+s.Host, s.at.path); used {
			s.hostAt.fail("host name %s is already used by %s; choose another name", s.Host, other)
		}
	}
	if name := s.effectiveName(); name != "" {
		if other, used := claims.claim("space "+name, s.at.path); used {
			s.at.fail("Space name %s is already used by %s; choose another `name`", name, other)
		}
	}
	l.checkMembers(s, people)
}

// spaceNames returns the names of all Spaces that have a valid one.
func (l *loader) spaceNames() (names []string) {
	for i := range l.spaces {
		if name := l.spaces[i].effectiveName(); name != "" {
			names = append(names, name)
		}
	}
	return names
}

// effectiveName returns the Space's name, which defaults to its folder's. It returns "" if the file's name is invalid.
func (s *spaceEntry) effectiveName() string {
	if s.nameAt.isPresent() || s.Dir == "" {
		return s.Name
	}
	return space.NameOf(s.Dir)
}

// checkMembers sets the members of a private Space. If the Space lists none, every person of the host is a member. A name that
// the file does not define may be of a person whom the operator adds with `spacehost user add`, so it is a warning.
func (l *loader) checkMembers(s *spaceEntry, known []string) {
	if s.Visibility != Private {
		if s.membersAt.isPresent() {
			s.membersAt.fail("only a private Space has members; set `visibility: private`, or remove `members`")
		}
		return
	}
	for _, member := range s.listed {
		if !slices.Contains(known, member.name) {
			if err := people.CheckName(member.name); err != nil {
				member.fail("%v", err)
				continue
			}
			l.warn(member.node, "member %s is not defined in this file, so only `spacehost user add %[1]s` makes this person known; %s", member.name,
				suggest(member.name, known, "people defined in this file: "))
		}
		s.Members = append(s.Members, member.name)
	}
	if len(known) == 0 {
		l.warn(s.at, "no visitor can open this private Space, because no `people` are defined; add at least one, or run `spacehost user add NAME`")
	}
}
