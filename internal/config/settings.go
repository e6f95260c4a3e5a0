package config

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"time"

	"spacehost/gpu"
	"spacehost/internal/notify"
	"spacehost/internal/people"
	"spacehost/internal/space"
	"spacehost/internal/web"
	"spacehost/quota"
)

// Settings describe one Host. They come from flags (`run`) or from a file (`serve`).
type Settings struct {
	File          string                 // path of the configuration; empty for `run`
	StateFlag     string                 // the state folder that overrides the file's; empty: none
	Sources       []string               // paths of the files that the configuration was read from
	SourceStates  map[string]SourceState // what they were like before they were read
	State         string
	Spaces        []SpaceSettings
	Address       Setting // shared by the Spaces that have a host name and no address
	Console       Setting
	GPUs          Setting  // auto, none or mock:...
	OnlyGPUs      []string // the GPUs of the machine to use, by index or beginning of the UUID; nil: all
	Hardware      Setting  // auto, or one of gpu.KnownHardware
	Preset        Setting
	OwnTiers      []quota.Tier
	LocalTier     Setting   // tier of loopback callers
	AdvisoryRuns  bool      // no loopback caller is refused by the number of runs
	Share         gpu.Share // share of a Device that a call of size large gets
	PerSpace      int       // maximum concurrent GPU calls of one Space; 0: limited only by free GPUs
	QueueTimeout  time.Duration
	WarmFor       time.Duration
	Drain         time.Duration // how long running calls may continue when the host ends their Space; 0: not at all
	Agent         Agent         // the process that starts the Spaces; NoAgent for `run`
	OrphanAfter   time.Duration // how long an agent keeps the Spaces without a host; 0: no agent
	Cluster       Cluster       // the zero value for `run`
	Pools         []Pool        // of machines that a scheduler lends; nil for `run`
	Keep          time.Duration // how long ended leases and ledger lines stay in the database; 0: forever
	TotalLimits   Limits        // of all Spaces together; only the fields of totalKeys are set
	Log           Log
	Hosts         []string // host names that requests may use, in addition to the default ones
	Proxies       []netip.Prefix
	MetricsFrom   []netip.Prefix // networks that may read /metrics, in addition to this machine
	People        []people.Declared
	AdminGroups   []string // groups of people who are admins
	Webhooks      []notify.Hook
	IdentityMode  string      // direct or hub
	ConsoleURL    web.Address // the console's address in browsers; the zero value: the address that it listens on
	TLS           TLS         // of all addresses that visitors use
	InsecureLogin bool        // allow sign-in over plain HTTP from other machines
	AdmitBySpace  bool        // the Space admits every call itself
	ByName        bool        // set HF_ENDPOINT for Spaces, so that they find each other by name
	Rebuild       bool
	ReadyJSON     bool
	WatchSource   bool // restart a Space when its files change
	WatchConfig   bool // reload the configuration when its files change
	Strict        bool // stop Spaces that ZeroGPU would stop, instead of printing a warning
	EndUnleased   bool // end processes of Spaces that use a GPU outside any Lease
	Users         UIDs // uids for Spaces at IsolationUsers; the zero value if none are set
	UsersPlace    Place
}

// SourceState tells a file from a changed one.
type SourceState struct {
	Size     int64
	Modified time.Time
}

// Log bounds the host's own log. The zero value means DefaultLog.
type Log struct {
	Size int64         // bytes of all its files together
	Keep time.Duration // age after which a file is removed; 0: any
}

// DefaultLog is the size and age of a log of which the settings name none.
var DefaultLog = Log{Size: 100 << 20, Keep: DefaultKeep}

// Setting is a value and its source in the user's terms: a flag, or a key with its line in the file.
type Setting struct{ Value, Source string }

// SpaceSettings are the settings of one Space.
type SpaceSettings struct {
	Gradio      string // version instead of sdk_version; empty: that one
	Dir         string
	Name        string  // empty: the folder's name
	Addr        Setting // the Space's own address; empty: Settings.Address, under Host
	Host        string
	URL         web.Address // the Space's address in browsers; the zero value: where it listens, or its name there
	SubPath     string      // path below which a reverse proxy serves the Space, such as /hello; that of URL, if it is set; empty: at the root only
	Visibility  Visibility
	Members     []string // people that may open the Space if it is private; nil: every person of the host
	Python      string
	On          []string // names and labels of the nodes that may run the Space; nil: the host's own machine (internal/placement)
	Concurrency *int     // maximum concurrent GPU calls; nil: Settings.PerSpace
	Variables   map[string]string
	Secrets     map[string]string
	Liveness    Liveness
	Bar         bool // pages of the Space get the host's bar
	IsolationSettings
}

// Visibility controls access to a Space, in the Hub's terms.
type Visibility string

const (
	Public    Visibility = "public"
	Protected Visibility = "protected" // open to every visitor, but listed only for the operator
	Private   Visibility = "private"   // open and visible to its members only
)

// IsServe reports whether the host serves several people (`serve`), not one user on one machine (`run`).
func (s Settings) IsServe() bool { return s.File != "" }

// SpacesAreRoot reports whether the code of a Space runs as root: below IsolationUsers, Spaces run as the user of the host.
func (s Settings) SpacesAreRoot() bool {
	asHost := func(one SpaceSettings) bool { return one.Isolation != IsolationUsers }
	return os.Geteuid() == 0 && (len(s.Spaces) == 0 || slices.ContainsFunc(s.Spaces, asHost))
}

// IsHub reports whether a browser's identity is passed to Spaces only in the ways that the Hub uses.
func (s Settings) IsHub() bool { return s.IdentityMode == "hub" }

// HostNames returns the host names that requests may use at the address of a Space that has its own.
func (s Settings) HostNames(forSpace SpaceSettings) []string {
	return append(slices.Clone(s.Hosts), forSpace.PublicNames()...)
}

// Open reads the Space's folder and applies the configured name.
func (s SpaceSettings) Open() (*space.Space, error) {
	opened, err := space.Open(s.Dir)
	if err == nil && s.Gradio != "" {
		opened.SDKVersion = s.Gradio
	}
	if err == nil {
		s.rename(opened)
	}
	return opened, err
}

// Unread describes a Space whose folder cannot be opened, by its name alone.
func (s SpaceSettings) Unread() *space.Space {
	unread := space.Unread(s.Dir)
	s.rename(unread)
	return unread
}

func (s SpaceSettings) rename(opened *space.Space) {
	if s.Name != "" {
		opened.Name, opened.ID = s.Name, "local/"+s.Name
	}
}

// OpenSpace reads the folder of one Space. Errors: those of space.Open and, if Strict, space.Space.Refused.
func (s Settings) OpenSpace(settings SpaceSettings) (*space.Space, error) {
	found, err := settings.Open()
	if err == nil && s.Strict && found.Refused != nil {
		return nil, found.Refused
	}
	return found, err
}

// OpenSpaces reads every folder and stops at the first error. Names must be unique, because URLs of the device API,
// tokens and the ledger contain them. Errors: *NameError, and those of OpenSpace.
func (s Settings) OpenSpaces() (opened []*space.Space, err error) {
	dirs := map[string]string{}
	for _, settings := range s.Spaces {
		found, err := s.OpenSpace(settings)
		if err != nil {
			return opened, err
		}
		if other, used := dirs[found.Name]; used {
			return opened, &NameError{found.Name, other, found.Dir}
		}
		dirs[found.Name] = found.Dir
		opened = append(opened, found)
	}
	return opened, nil
}

// OpenOrUnread reads every folder. A Space that OpenSpace refuses is described by its name alone, and was not read.
func (s Settings) OpenOrUnread() (opened []*space.Space, read []bool) {
	for _, settings := range s.Spaces {
		found, err := s.OpenSpace(settings)
		if err != nil {
			found = settings.Unread()
		}
		opened, read = append(opened, found), append(read, err == nil)
	}
	return opened, read
}

// NameError reports two folders of `run` with the same Space name. Visitors, tokens and the ledger could not
// distinguish the two Spaces.
type NameError struct{ name, dir, otherDir string }

func (e *NameError) Error() string {
	return fmt.Sprintf("folders %s and %s both have the Space name %q; rename one of the folders", e.dir, e.otherDir, e.name)
}
