package worker

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode"

	"spacehost/internal/printable"
	"spacehost/queue"
)

// report is the header of a Frame from the runner. Op determines which fields are used.
type report struct {
	Op string `json:"op"` // hello manifest unknown server static changed closed admitted message failure done fact calls alive

	size   int // bytes of the header
	memory int // estimate of the memory that the parsed header takes

	Protocol int    `json:"protocol"` // hello
	Python   string `json:"python"`

	App int `json:"app"` // manifest, changed, closed, admitted
	manifest
	Reason string `json:"reason"` // unknown, which also has a port and a gradio; server has a port

	Paths []string `json:"paths"` // static

	Fact *Observation `json:"fact"` // fact; calls has a payload only

	Event    queue.EventID     `json:"event"` // admitted, message, done
	Session  queue.SessionHash `json:"session"`
	Endpoint *endpoint         `json:"endpoint"`
	Call     queue.EventID     `json:"call"` // the direct call of the admitted request (gradioapi, headerCall)
	Cached   bool              `json:"cached"`

	Msg     queue.Kind `json:"msg"` // message
	Success *bool      `json:"success"`

	Number int               `json:"number"` // failure, from 1; alive
	Rule   string            `json:"rule"`
	File   string            `json:"file"`
	Line   int               `json:"line"`
	Values map[string]string `json:"values"`
	Events []queue.EventID   `json:"events"`

	Loop   bool   `json:"loop"`   // alive: the answer of the event loop, not of the thread, which has the other fields
	Server string `json:"server"` // the state of the event loop: none, runs, ended
	Thread string `json:"thread"` // that runs the event loop

	Error   string   `json:"error"` // done
	Average *float64 `json:"average"`
}

type manifest struct {
	First         int        `json:"first"` // number of the first manifest of the same Blocks: a relaunch has an earlier one
	Gradio        string     `json:"gradio"`
	Prefix        string     `json:"prefix"`
	Mount         string     `json:"mount"`
	Port          int        `json:"port"`
	Further       bool       `json:"further"` // launched in addition to the app that visitors reach
	MaxSize       *int       `json:"max_size"`
	LiveUpdates   bool       `json:"live_updates"`
	UpdateSeconds float64    `json:"update_seconds"`
	MaxThreads    int        `json:"max_threads"`
	Native        bool       `json:"native"`
	Endpoints     []endpoint `json:"endpoints"`
	Files         *files     `json:"files"`

	Renders bool             `json:"renders"`
	Servers map[int][]string `json:"servers"`

	Explorers []int `json:"explorers"`

	Frontend *frontend `json:"frontend"`

	Tasks map[string]task `json:"tasks"` // also in unknown
}

type task struct {
	Name    string   `json:"name"`
	Seconds *float64 `json:"seconds"` // nil: each call declares its own duration
	Size    string   `json:"size"`
}

type files struct {
	Uploads   string            `json:"uploads"`
	Seed      string            `json:"seed"`
	MaxSize   *int64            `json:"max_size"`
	Names     map[string]string `json:"names"`
	Cache     string            `json:"cache"`
	Allowed   []string          `json:"allowed"`
	Blocked   []string          `json:"blocked"`
	Static    []string          `json:"static"`
	Safe      []string          `json:"safe"`
	Types     map[string]string `json:"types"`
	Encodings map[string]string `json:"encodings"`
	Suffixes  map[string]string `json:"suffixes"`
	Proxied   bool              `json:"proxied"`
	Expires   bool              `json:"expires"`
	Ranges    bool              `json:"ranges"`
}

type frontend struct {
	Pages   []string          `json:"pages"`
	Root    string            `json:"root"`
	Folders map[string]string `json:"folders"`
	Types   map[string]string `json:"types"`
}

type endpoint struct {
	ID        int      `json:"id"`
	APIName   string   `json:"api_name"`
	Group     string   `json:"group"`
	Limit     *int     `json:"limit"`
	Batch     int      `json:"batch"`
	Stream    bool     `json:"stream"`
	Generator bool     `json:"generator"`
	TimeLimit *float64 `json:"time_limit"`
	Inputs    int      `json:"inputs"`
	Free      []int    `json:"free"`
	Explores  []int    `json:"explores"`
	Native    bool     `json:"native"`
}

// Bounds of the values in a report.
const (
	maxValues    = 50_000 // of one header: the shortest values take ten times the memory of their text
	valueMemory  = 64     // bytes, the estimate for each value
	maxEndpoints = 5_000  // of one app
	maxThreads   = 4_096
	maxSeconds   = 365 * 24 * 3600
	leastUpdate  = 100 * time.Millisecond // each update costs the host work: a shorter interval is raised to this
)

func isPort(port int) bool { return port >= 1 && port <= 65535 }

func parseReport(f Frame) (report, error) {
	values := bytes.Count(f.Header, []byte{','}) // more than the true number if a string contains commas
	if values > maxValues {
		return report{}, &FrameError{fmt.Sprintf("header with %d values, the limit is %d", values, maxValues)}
	}
	r := report{size: len(f.Header), memory: len(f.Header) + values*valueMemory}
	if err := json.Unmarshal(f.Header, &r); err != nil {
		return report{}, &FrameError{"header: " + err.Error()}
	}
	return r, nil
}

// unexpected is the breach of a hello that does not come first, or of another report that does.
func unexpected(r report) error {
	return &FrameError{fmt.Sprintf("unexpected %.40q: hello comes first and only once", r.Op)}
}

func (r report) manifestOf() (queue.Manifest, error) {
	m := r.manifest
	if m.MaxThreads < 1 || m.MaxThreads > maxThreads || !isPort(m.Port) ||
		m.UpdateSeconds < 0 || m.UpdateSeconds > maxSeconds || m.MaxSize != nil && *m.MaxSize < 0 {
		return queue.Manifest{}, &FrameError{fmt.Sprintf("manifest out of bounds: %d threads, port %d, updates every %g s", m.MaxThreads, m.Port, m.UpdateSeconds)}
	}
	if len(m.Endpoints) > maxEndpoints {
		return queue.Manifest{}, &FrameError{fmt.Sprintf("manifest with %d endpoints, the limit is %d", len(m.Endpoints), maxEndpoints)}
	}
	if m.First < 0 || m.First > r.App {
		return queue.Manifest{}, &FrameError{fmt.Sprintf("manifest number %d names app %d as its first launch", r.App+1, m.First)}
	}
	out := queue.Manifest{
		App: r.App, Gradio: printable.Reason(m.Gradio), Prefix: m.Prefix, Mount: m.Mount, Port: m.Port, MaxSize: m.MaxSize,
		LiveUpdates: m.LiveUpdates, UpdateEvery: max(leastUpdate, seconds(m.UpdateSeconds)), MaxThreads: m.MaxThreads, Native: m.Native,
		Endpoints: make(map[int]queue.Endpoint, len(m.Endpoints)),
		Files:     m.Files.files(), Renders: m.Renders, Servers: m.Servers, Explorers: m.Explorers,
	}
	for _, e := range m.Endpoints {
		made, err := e.endpoint(m.Mount)
		if err != nil {
			return queue.Manifest{}, err
		}
		out.Endpoints[e.ID] = made
	}
	out.Frontend = m.Frontend.known()
	out.Tasks = m.tasks()
	return out, nil
}

// Bounds of the GPU functions that are kept and shown.
const (
	maxTasks    = 500
	maxTaskName = 100
)

// tasks drops invalid GPU functions. They are only shown to users and influence no decision.
func (m manifest) tasks() map[string]queue.Task {
	tasks := map[string]queue.Task{}
	for id, t := range m.Tasks {
		unfit := strings.IndexFunc(t.Name, func(r rune) bool { return !unicode.IsPrint(r) }) >= 0
		unfit = unfit || t.Size != "" && t.Size != "large" && t.Size != "xlarge"
		if len(tasks) == maxTasks || t.Name == "" || len(t.Name) > maxTaskName || unfit || t.Seconds != nil && (*t.Seconds < 0 || *t.Seconds > maxSeconds) {
			continue
		}
		known := queue.Task{Name: t.Name, Size: t.Size, Varies: t.Seconds == nil}
		if t.Seconds != nil {
			known.Declared = max(time.Second, seconds(*t.Seconds)) // 0 counts as a second, as in deviceapi
		}
		tasks[id] = known
	}
	return tasks
}

func (f *files) files() *queue.Files {
	if f == nil || f.MaxSize != nil && *f.MaxSize < 0 {
		return nil
	}
	out := &queue.Files{
		Uploads: f.Uploads, Cache: f.Cache, Seed: f.Seed, MaxSize: f.MaxSize, Names: f.Names, Allowed: f.Allowed, Blocked: f.Blocked,
		Safe: map[string]bool{}, Types: f.Types, Encodings: f.Encodings, Suffixes: f.Suffixes, Proxied: f.Proxied, Expires: f.Expires, Ranges: f.Ranges,
	}
	for _, kind := range f.Safe {
		out.Safe[kind] = true
	}
	out.SetStatic(f.Static)
	return out
}

// known converts the frontend report. Package gradioapi validates Root: it opens Root only if it is the folder of a
// Gradio.
func (f *frontend) known() *queue.Frontend {
	if f == nil {
		return nil
	}
	pages := make(map[string]bool, len(f.Pages))
	for _, path := range f.Pages {
		pages[path] = true
	}
	return &queue.Frontend{Pages: pages, Root: f.Root, Folders: f.Folders, Types: f.Types}
}

// endpoint returns an Endpoint of the app at mount. Two apps may use the same group name for different groups.
func (e endpoint) endpoint(mount string) (queue.Endpoint, error) {
	out := queue.Endpoint{ID: e.ID, Mount: mount, APIName: e.APIName, Group: mount + e.Group, Batch: e.Batch, Stream: e.Stream, Generator: e.Generator, Inputs: e.Inputs, Free: e.Free, Explores: e.Explores, Native: e.Native}
	if e.Limit != nil {
		out.Limit = *e.Limit
	}
	limit := 0.0
	if e.TimeLimit != nil {
		limit = *e.TimeLimit
	}
	if out.Limit < 0 || out.Batch < 0 || out.Inputs < 0 || limit < 0 || limit > maxSeconds {
		return queue.Endpoint{}, &FrameError{fmt.Sprintf("endpoint %d out of bounds", e.ID)}
	}
	out.TimeLimit = seconds(limit)
	return out, nil
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// Frames from the host to the runner.

type configOrder struct {
	Op          string            `json:"op"` // config
	Environment map[string]string `json:"environment"`
	Port        int               `json:"port"`
	Key         string            `json:"key"`
	PublicURL   string            `json:"public_url"`
	LocalURL    string            `json:"local_url,omitempty"`
	DevicePort  int               `json:"device_port"`
	Simulated   bool              `json:"simulated"`
	Subreaper   bool              `json:"subreaper,omitempty"` // whether each GPU worker becomes a subreaper
	Strict      bool              `json:"strict,omitempty"`
	Storage     bool              `json:"storage,omitempty"` // whether the Space has a /data of its own
	Standby     bool              `json:"standby,omitempty"` // whether the app waits for goOrder after its first imports
	Shield      bool              `json:"shield,omitempty"`  // whether SIGTERM is ignored until endOrder
	Observe     *observeOrder     `json:"observe,omitempty"` // nil: the start is not observed
	StackSignal int               `json:"stack_signal"`      // at which the runner writes the stacks of its threads
}

// probeOrder requests two alive reports: of the thread of the channel, and of the event loop.
type probeOrder struct {
	Op     string `json:"op"` // probe
	Number int    `json:"number"`
}

// stacksOrder requests the stacks of all threads, in the memory for them.
type stacksOrder struct {
	Op string `json:"op"` // stacks
}

// goOrder lets a standby begin with its app.
type goOrder struct {
	Op string `json:"op"` // go
}

type startOrder struct {
	Op     string       `json:"op"` // start
	App    int          `json:"app"`
	Events []eventOrder `json:"events"`
}

type eventOrder struct {
	ID       queue.EventID `json:"id"`
	Admitted bool          `json:"admitted"`
	Token    string        `json:"token"`
	Size     int           `json:"size"` // of the event's body in the payload
	Headers  [][2]string   `json:"headers"`
	Path     string        `json:"path"`
	Query    string        `json:"query"`
	Scheme   string        `json:"scheme"`
	Client   string        `json:"client"`
}

// stackOrder requests a failure report about where the main thread of the app is.
type stackOrder struct {
	Op string `json:"op"` // stack
}

type cancelOrder struct {
	Op    string        `json:"op"` // cancel
	App   int           `json:"app"`
	Event queue.EventID `json:"event"`
}

type goneOrder struct {
	Op     string          `json:"op"` // gone
	App    int             `json:"app"`
	Events []queue.EventID `json:"events"`
}

// tokenHeader carries the payer's identity into the Space (spaces/zero/client.py, TOKEN_HEADER).
const tokenHeader = "x-ip-token"

func startFrame(job queue.Job) Frame {
	order := startOrder{Op: "start", App: job.App}
	var payload []byte
	for _, e := range job.Events {
		o := eventOrder{ID: e.ID, Admitted: e.Admitted, Token: e.Token}
		if !e.Admitted {
			o.Headers = append(e.Request.Headers[:len(e.Request.Headers):len(e.Request.Headers)], [2]string{tokenHeader, e.Token})
			o.Size, o.Path, o.Query = len(e.Body), e.Request.Path, e.Request.Query
			o.Scheme, o.Client = e.Request.Scheme, e.Request.Client
			if payload == nil {
				payload = e.Body[:len(e.Body):len(e.Body)] // usually the only one, and not copied
			} else {
				payload = append(payload, e.Body...)
			}
		}
		order.Events = append(order.Events, o)
	}
	return newFrame(order, payload)
}
