package notify

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Kind is what a notice is about. Names are dotted, as Standard Webhooks recommends for the type of an event.
type Kind string

// The kinds. docker/monitoring/alerts.yml has an alert for each of them, except Test.
const (
	SpaceDown         Kind = "space.down"         // a Space that ran, or should run, does not
	SpaceRestarted    Kind = "space.restarted"    // a Space runs again, after a failure or a request
	SpaceUnresponsive Kind = "space.unresponsive" // the process of a Space runs and does not answer
	GPUDrained        Kind = "gpu.drained"        // an operator's drain is in force
	GPULost           Kind = "gpu.lost"           // the driver reports a hardware error, or does not answer for the GPU
	GPUUnleased       Kind = "gpu.unleased"       // a process uses a GPU without a lease
	DiskLow           Kind = "disk.low"           // the disk of the state folder is nearly full
	HostCrashed       Kind = "host.crashed"       // the host has started, and the one before it did not end by itself
	QuotaLow          Kind = "quota.low"          // a person has used nearly all of their quota
	Test              Kind = "test"               // of `spacehost webhook test`
)

// Kinds are all kinds that a hook may select.
var Kinds = []Kind{SpaceDown, SpaceRestarted, SpaceUnresponsive, GPUDrained, GPULost, GPUUnleased, DiskLow, HostCrashed, QuotaLow}

// Notice is one event. Text is one or two sentences that need no other field. Fields that do not apply are empty.
type Notice struct {
	Kind   Kind
	Text   string
	Space  string
	GPU    string
	Person string // the person that QuotaLow is about

	id string
	at time.Time
}

// payload is the JSON form of a Notice.
type payload struct {
	Type      Kind      `json:"type"`
	Timestamp time.Time `json:"timestamp"`
	Data      data      `json:"data"`
}

type data struct {
	Text   string `json:"text"`
	Host   string `json:"host"`
	Space  string `json:"space,omitempty"`
	GPU    string `json:"gpu,omitempty"`
	Person string `json:"person,omitempty"`
}

// Format is the form of a request's body.
type Format string

// The formats.
const (
	JSON  Format = "json"
	Slack Format = "slack" // the form of Slack's incoming webhooks, which Mattermost and Discord (/slack) accept too
)

// slackEscapes are the characters that Slack's messages reserve
// (docs.slack.dev/messaging/formatting-message-text, "Escaping text").
var slackEscapes = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")

// body returns a Notice in a format. host is the name of this machine.
func (n Notice) body(f Format, host string) ([]byte, error) {
	if f == Slack {
		return json.Marshal(map[string]string{"text": slackEscapes.Replace(fmt.Sprintf("%s (%s): %s", host, n.Kind, n.Text))})
	}
	return json.Marshal(payload{n.Kind, n.at.UTC(), data{n.Text, host, n.Space, n.GPU, n.Person}})
}

// stamped returns the Notice with its time and a new id.
func (n Notice) stamped(now time.Time) Notice {
	var b [12]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand, Go 1.24)
	n.id, n.at = "msg_"+hex.EncodeToString(b[:]), now
	return n
}

// Hook is a URL that receives notices.
type Hook struct {
	Name   string // in logs and metrics; it contains no part of the URL but its host
	URL    string
	Secret string // as CheckSecret accepts it; empty: requests are not signed
	Format Format
	Kinds  []Kind // nil: all
	Person string // the hook of a person receives the notices about this person alone; empty: one of the operator
}

// wants reports whether the hook receives a Notice.
func (h Hook) wants(n Notice) bool {
	if n.Kind == Test {
		return true
	}
	if h.Person != "" {
		return h.Person == n.Person
	}
	return h.Kinds == nil || slices.Contains(h.Kinds, n.Kind)
}

func (h Hook) isSame(o Hook) bool {
	return h.Name == o.Name && h.URL == o.URL && h.Secret == o.Secret && h.Format == o.Format && h.Person == o.Person && slices.Equal(h.Kinds, o.Kinds)
}
