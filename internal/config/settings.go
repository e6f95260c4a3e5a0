package config

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"spacehost/gpu"
	"spacehost/internal/people"
	"spacehost/internal/space"
	"spacehost/quota"
)

// Settings are what a Host is made of, whether flags (`run`) or a file (`serve`) say so.
type Settings struct {
	File          string // the configuration; empty for `run`
	State         string
	Spaces        []SpaceSettings
	Address       Setting // of the Spaces that share one
	Console       Setting
	GPUs          Setting // auto, none or mock:...
	Hardware      Setting // auto, or one of KnownHardware
	Preset        Setting
	OwnTiers      []quota.Tier
	LocalTier     Setting   // of loopback callers
	Share         gpu.Share // of a Device, that a call of size large gets
	PerSpace      int       // calls of a Space that may have a GPU at once; 0: as many as there are places
	QueueTimeout  time.Duration
	WarmFor       time.Duration
	Keep          time.Duration // how long what is over stays in the database; 0: for ever
	Hosts         []string      // by which visitors may ask for this host, beside the usual ones
	Proxies       []netip.Prefix
	MetricsFrom   []netip.Prefix // who may read /metrics, beside this machine
	People        []people.Declared
	IdentityMode  string // of identity: direct, or hub
	ConsoleURL    string // where browsers find the console; empty: where it listens
	InsecureLogin bool   // people may sign in where others can listen
	AdmitBySpace  bool   // every call is admitted by its Space
	ByName        bool   // Spaces get HF_ENDPOINT
	Rebuild       bool
	ReadyJSON     bool
	EndUnleased   bool // processes of Spaces that use a GPU outside any Lease
}

// Setting is a value, and what its user calls it: a flag, or a key in a line of the file.
type Setting struct{ Value, Source string }

// SpaceSettings are those of one Space.
type SpaceSettings struct {
	Dir         string
	Name        string  // empty: by its folder
	Addr        Setting // its own; empty: it shares Settings.Address, and has a host
	Host        string
	Visibility  Visibility
	Members     []string // who may come in, if it is private
	Python      string
	Concurrency *int // of its calls with a GPU; nil: the host's perSpace
	Variables   map[string]string
	Secrets     map[string]string
}

// Visibility is who may see a Space, in the Hub's words.
type Visibility string

const (
	Public    Visibility = "public"
	Protected Visibility = "protected" // answers everybody, and is listed to the operator alone
	Private   Visibility = "private"   // is not there, but for its members
)

// IsServe reports whether people share this host, and not its one user's machine.
func (s Settings) IsServe() bool { return s.File != "" }

// IsHub reports whether a browser's identity travels only as it does on the Hub.
func (s Settings) IsHub() bool { return s.IdentityMode == "hub" }

// HostNames are those by which visitors may ask for an address of its own.
func (s Settings) HostNames(own SpaceSettings) []string {
	names := slices.Clone(s.Hosts)
	if own.Host != "" {
		names = append(names, own.Host)
	}
	return names
}

// Open reads the Space's folder.
func (s SpaceSettings) Open() (*space.Space, error) {
	opened, err := space.Open(s.Dir)
	if err == nil && s.Name != "" {
		opened.Name, opened.ID = s.Name, "local/"+s.Name
	}
	return opened, err
}

// OpenSpaces reads every folder, up to the first that is wrong. Names must differ: they are in URLs of the device
// API, tokens and the ledger.
func (s Settings) OpenSpaces() (opened []*space.Space, err error) {
	dirs := map[string]string{}
	for _, one := range s.Spaces {
		found, err := one.Open()
		if err != nil {
			return opened, err
		}
		if other, taken := dirs[found.Name]; taken {
			return opened, &NameError{found.Name, other, found.Dir}
		}
		dirs[found.Name] = found.Dir
		opened = append(opened, found)
	}
	return opened, nil
}

// NameError: two folders of `run` would be one Space to visitors, tokens and ledger.
type NameError struct{ name, one, other string }

func (e *NameError) Error() string {
	return fmt.Sprintf("%s and %s are both the Space %q: rename one of the folders", e.one, e.other, e.name)
}
