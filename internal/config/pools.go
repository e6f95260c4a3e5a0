package config

import (
	"errors"
	"fmt"
	"net"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"spacehost/internal/placement"
	"spacehost/internal/slurm"
)

// Pool keeps pilot jobs in a scheduler of the lab, each of which becomes a node (internal/pools). Only Slurm is known.
type Pool struct {
	Name      string // of the pool, its label, and the begin of its nodes' names
	Partition string
	Account   string
	Gres      string
	Min, Max  int           // jobs
	Time      time.Duration // limit of a job
	Drain     time.Duration // before the end of a job: running calls may finish
	Idle      time.Duration // after which an unused node is given back
	Wait      time.Duration // of a Space or a call, after which a job is added
	Labels    []string      // of its nodes, besides Name
	GPUs      string        // --gpus of the agents; empty: those of the job
	Options   []string      // of sbatch
	Program   string        // path of spacehost on the machines of the jobs; empty: that of the front
	State     string        // folder on these machines; empty: that of package slurm
	Front     string        // HOST:PORT for the agents; empty: where the front listens
}

// DefaultPool has the values of the keys that a pool does not set.
var DefaultPool = Pool{Name: "slurm", Max: 1, Time: 8 * time.Hour, Drain: 10 * time.Minute, Idle: time.Hour, Wait: 30 * time.Second}

// The bounds of a pool.
const (
	maxPoolJobs    = 1000
	maxPoolTime    = 365 * 24 * time.Hour
	maxPoolDrain   = 12 * time.Hour // --signal of sbatch has 16 bits
	maxPoolIdle    = 30 * 24 * time.Hour
	minPoolTime    = 2 * time.Minute // Slurm ends jobs up to a minute late, and signals them up to a minute early
	maxPoolName    = 30              // bytes: a hyphen and the ID of a job follow
	maxPoolOptions = 32
	maxPoolLabels  = 31
)

// poolEntry is a Pool with its places in the file.
type poolEntry struct {
	Pool
	at node
}

// pool reads one item of `pools`.
func (l *loader) pool(n node) {
	n.fields("a mapping with the key slurm", map[string]func(node){"slurm": l.slurmPool})
	if n.yaml.Kind == yaml.MappingNode && len(n.yaml.Content) == 0 {
		n.fail("has no `slurm`; add it, such as slurm: {partition: gpu, gres: \"gpu:1\", max: 4}")
	}
}

func (l *loader) slurmPool(n node) {
	p := poolEntry{DefaultPool, n}
	max := node{}
	n.fields("a mapping that describes a pool (partition, gres, min, max, time, ...)", map[string]func(node){
		"name":      func(at node) { at.poolName(&p.Name) },
		"partition": func(at node) { at.slurmText(&p.Partition) },
		"account":   func(at node) { at.slurmText(&p.Account) },
		"gres":      func(at node) { at.slurmText(&p.Gres) },
		"min":       func(at node) { set(&p.Min)(at.number(0, maxPoolJobs)) },
		"max":       func(at node) { max = at; set(&p.Max)(at.number(0, maxPoolJobs)) },
		"time":      func(at node) { set(&p.Time)(at.span(minPoolTime, maxPoolTime)) },
		"drain":     func(at node) { set(&p.Drain)(at.span(0, maxPoolDrain)) },
		"idle":      func(at node) { set(&p.Idle)(at.span(time.Second, maxPoolIdle)) },
		"wait":      func(at node) { set(&p.Wait)(at.span(0, time.Hour)) },
		"labels": func(at node) {
			at.texts("labels", func(item node, label string) { item.poolLabel(label, &p.Labels) })
		},
		"gpus": func(at node) {
			if text, ok := at.text(); ok {
				if _, _, err := AgentGPUs(text); err != nil {
					at.fail("%v", err)
				}
				p.GPUs = text
			}
		},
		"options": func(at node) {
			at.texts("options of sbatch", func(item node, option string) { item.slurmOption(option, &p.Options) })
		},
		"program": func(at node) { at.remotePath(&p.Program) },
		"state":   func(at node) { at.remotePath(&p.State) },
		"front": func(at node) {
			if text, ok := at.text(); ok {
				if err := CheckFront(text); err != nil {
					at.fail("%v", err)
				}
				p.Front = text
			}
		},
	})
	switch {
	case p.Min > p.Max && max.isPresent():
		n.fail("`min` %d is above `max` %d; raise `max`", p.Min, p.Max)
	case p.Min > p.Max:
		p.Max = p.Min
	}
	if err := p.CheckTimes(); err != nil {
		n.fail("%v", err)
	}
	l.pools = append(l.pools, p)
}

// CheckTimes refuses a time limit that has no room for a drain.
func (p Pool) CheckTimes() error {
	if p.Drain < 0 || p.Drain > maxPoolDrain || p.Time > maxPoolTime || p.Time < p.Drain+minPoolTime {
		return fmt.Errorf("the time limit %s of a job is not enough for the drain %s; make it at least %s longer", durationText(p.Time), durationText(p.Drain), durationText(minPoolTime))
	}
	return nil
}

// CheckFront refuses what cannot be the address of a front for an agent.
func CheckFront(text string) error {
	if name, _, err := net.SplitHostPort(text); err != nil || name == "" || CheckAddress(text) != nil {
		return fmt.Errorf("%.60q is not an address; give HOST:PORT, such as front.lab.example:7443", text)
	}
	return nil
}

func (n node) poolName(into *string) {
	text, ok := n.text()
	if !ok {
		return
	}
	if err := CheckPoolName(text); err != nil {
		n.fail("%v", err)
		return
	}
	*into = text
}

// CheckPoolName refuses what cannot be the name of a pool, which is a label and the begin of its nodes' names.
func CheckPoolName(text string) error {
	if err := placement.CheckWord(text); err != nil {
		return err
	}
	if text == placement.Host {
		return errors.New("host is the label of the host's own machine; choose another name for the pool")
	}
	if len(text) > maxPoolName {
		return fmt.Errorf("%.70q is too long; choose a name of at most %d characters", text, maxPoolName)
	}
	return nil
}

func (n node) poolLabel(label string, into *[]string) {
	switch err := placement.CheckWord(label); {
	case err != nil:
		n.fail("%v", err)
	case slices.Contains(*into, label):
		n.fail("duplicate label %s; remove one of them", label)
	case len(*into) == maxPoolLabels:
		n.fail("is one label too many; give at most %d", maxPoolLabels)
	default:
		*into = append(*into, label)
	}
}

func (n node) slurmOption(option string, into *[]string) {
	switch err := slurm.CheckOption(option); {
	case err != nil:
		n.fail("%v", err)
	case len(*into) == maxPoolOptions:
		n.fail("is one option too many; give at most %d", maxPoolOptions)
	default:
		*into = append(*into, option)
	}
}

func (n node) slurmText(into *string) {
	text, ok := n.scalar()
	if !ok {
		return
	}
	if err := slurm.CheckText(text); err != nil {
		n.fail("%v", err)
		return
	}
	*into = text
}

// remotePath reads a path of another machine, which is not tried.
func (n node) remotePath(into *string) {
	text, ok := n.text()
	if !ok {
		return
	}
	if err := CheckRemotePath(text); err != nil {
		n.fail("%v", err)
		return
	}
	*into = path.Clean(text)
}

// CheckRemotePath refuses what is no absolute path of another machine.
func CheckRemotePath(text string) error {
	if !filepath.IsAbs(text) || slurm.CheckText(text) != nil {
		return fmt.Errorf("%.60q is not an absolute path of printable ASCII characters; it is one of the machines of the pool", text)
	}
	return nil
}

// span is like duration, with days.
func (n node) span(least, most time.Duration) (time.Duration, bool) {
	text, ok := n.scalar()
	if !ok {
		return 0, false
	}
	d, err := ParseSpan(text)
	if err != nil {
		d, err = parseDuration(text)
	}
	if err != nil || d < least || d > most {
		n.fail("must be a duration from %s to %s, such as 10m, 8h or 7d, not %.40q", durationText(least), durationText(most), text)
		return 0, false
	}
	return d, true
}

// checkPools refuses pools without a cluster, and two with one name.
func (l *loader) checkPools() {
	for _, p := range l.pools {
		if !l.settings.IsFront() {
			p.at.fail("has no effect without nodes; add `cluster: {listen: ADDRESS}`, or remove the pool")
		}
		if slices.ContainsFunc(l.settings.Pools, func(o Pool) bool { return o.Name == p.Name }) {
			p.at.fail("another pool is named %s; give one of them another `name`", p.Name)
		}
		l.settings.Pools = append(l.settings.Pools, p.Pool)
	}
}

// poolFields are the keys of a pool in a difference.
var poolFields = []field[Pool]{
	{"partition", AtOnce, func(p Pool) string { return p.Partition }, false},
	{"account", AtOnce, func(p Pool) string { return p.Account }, false},
	{"gres", AtOnce, func(p Pool) string { return p.Gres }, false},
	{"min", AtOnce, func(p Pool) string { return strconv.Itoa(p.Min) }, false},
	{"max", AtOnce, func(p Pool) string { return strconv.Itoa(p.Max) }, false},
	{"time", AtOnce, func(p Pool) string { return durationText(p.Time) }, false},
	{"drain", AtOnce, func(p Pool) string { return durationText(p.Drain) }, false},
	{"idle", AtOnce, func(p Pool) string { return durationText(p.Idle) }, false},
	{"wait", AtOnce, func(p Pool) string { return durationText(p.Wait) }, false},
	{"labels", AtOnce, func(p Pool) string { return list(sorted(p.Labels)) }, false},
	{"gpus", AtOnce, func(p Pool) string { return p.GPUs }, false},
	{"options", AtOnce, func(p Pool) string { return strings.Join(p.Options, " ") }, false},
	{"program", AtOnce, func(p Pool) string { return p.Program }, false},
	{"state", AtOnce, func(p Pool) string { return p.State }, false},
	{"front", AtOnce, func(p Pool) string { return p.Front }, false},
}

func poolNameOf(p Pool) string { return p.Name }

func poolChanges(from, to []Pool) []Change {
	summary := func(p Pool) string { return fmt.Sprintf("%d to %d jobs", p.Min, p.Max) }
	return entryChanges("pool", byName(from, poolNameOf), byName(to, poolNameOf), poolFields, summary)
}

// Provides reports whether a Space may run on the nodes of the pool.
func (p Pool) Provides(s SpaceSettings) bool {
	return slices.ContainsFunc(s.On, func(word string) bool { return word == p.Name || slices.Contains(p.Labels, word) })
}
