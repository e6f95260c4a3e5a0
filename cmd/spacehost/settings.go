package main

import (
	"net/netip"
	"slices"
	"time"

	"spacehost/gpu"
	"spacehost/internal/people"
	"spacehost/internal/space"
	"spacehost/quota"
	"spacehost/server"
)

// settings are what a Host is made of, whether flags (`run`) or a file (`serve`) say so.
type settings struct {
	file          string // the configuration; empty for `run`
	state         string
	spaces        []spaceSettings
	address       setting // of the Spaces that share one
	console       setting
	gpus          setting // auto, none or mock:...
	hardware      setting // auto, or one of hardwares
	preset        setting
	ownTiers      []quota.Tier
	localTier     setting   // of loopback callers
	share         gpu.Share // of a Device, that a call of size large gets
	perSpace      int       // calls of a Space that may have a GPU at once; 0: as many as there are places
	queueTimeout  time.Duration
	warmFor       time.Duration
	keep          time.Duration // how long what is over stays in the database; 0: for ever
	hosts         []string      // by which visitors may ask for this host, beside the usual ones
	proxies       []netip.Prefix
	metricsFrom   []netip.Prefix // who may read /metrics, beside this machine
	people        []people.Declared
	mode          string // of identity: direct, or hub
	consoleURL    string // where browsers find the console; empty: where it listens
	insecureLogin bool   // people may sign in where others can listen
	bySpace       bool   // every call is admitted by its Space
	byName        bool   // Spaces get HF_ENDPOINT
	rebuild       bool
	readyJSON     bool
	endUninvited  bool // processes of Spaces that use a GPU outside any Lease
}

// setting is a value, and what its user calls it: a flag, or a key in a line of the file.
type setting struct{ value, source string }

// spaceSettings are those of one Space.
type spaceSettings struct {
	dir         string
	name        string  // empty: by its folder
	addr        setting // its own; empty: it shares settings.address, and has a host
	host        string
	visibility  visibility
	members     []string // who may come in, if it is private
	python      string
	concurrency *int // of its calls with a GPU; nil: the host's perSpace
	variables   map[string]string
	secrets     map[string]string
}

// visibility is who may see a Space, in the Hub's words.
type visibility string

const (
	public    visibility = "public"
	protected visibility = "protected" // answers everybody, and is listed to the operator alone
	private   visibility = "private"   // is not there, but for its members
)

// isServe reports whether people share this host, and not its one user's machine.
func (s settings) isServe() bool { return s.file != "" }

// isHub reports whether a browser's identity travels only as it does on the Hub.
func (s settings) isHub() bool { return s.mode == "hub" }

// names are those by which visitors may ask for an address of its own.
func (s settings) names(own spaceSettings) server.Names {
	names := slices.Clone(s.hosts)
	if own.host != "" {
		names = append(names, own.host)
	}
	return names
}

// open reads the Space's folder.
func (s spaceSettings) open() (*space.Space, error) {
	opened, err := space.Open(s.dir)
	if err == nil && s.name != "" {
		opened.Name, opened.ID = s.name, "local/"+s.name
	}
	return opened, err
}

// openSpaces reads every folder, up to the first that is wrong. Names must differ: they are in URLs of the device
// API, tokens and the ledger.
func (s settings) openSpaces() (opened []*space.Space, err error) {
	dirs := map[string]string{}
	for _, one := range s.spaces {
		found, err := one.open()
		if err != nil {
			return opened, err
		}
		if other, taken := dirs[found.Name]; taken {
			return opened, &nameError{found.Name, other, found.Dir}
		}
		dirs[found.Name] = found.Dir
		opened = append(opened, found)
	}
	return opened, nil
}
