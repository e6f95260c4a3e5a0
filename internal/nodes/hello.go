package nodes

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"

	"spacehost/internal/placement"
)

// Hello is what an agent reports at the begin of each connection. It is a claim by the node.
type Hello struct {
	Version    string          `json:"version"`           // of the agent's program
	Boot       string          `json:"boot"`              // changes with each boot of the machine
	WallMillis int64           `json:"wall_ms"`           // its clock, since the epoch
	Labels     []string        `json:"labels,omitempty"`  // of --label
	Machine    json.RawMessage `json:"machine,omitempty"` // its Devices and processes; package machine reads it
	Leaving    *Leaving        `json:"leaving,omitempty"` // nil: no end is known
}

// Welcome is the answer of the front to a Hello.
type Welcome struct {
	Version string          `json:"version"` // of the front's program
	Machine json.RawMessage `json:"machine,omitempty"`
}

const (
	maxText   = 100 // bytes
	maxLabels = 32
)

// CheckLabels refuses what cannot be the labels of a node.
func CheckLabels(labels []string) error {
	if len(labels) > maxLabels {
		return fmt.Errorf("%d labels are too many; give at most %d", len(labels), maxLabels)
	}
	for _, label := range labels {
		if err := placement.CheckWord(label); err != nil {
			return err
		}
	}
	return nil
}

// Check refuses a hello with texts that are too long or cannot be printed.
func (h Hello) Check() error {
	for _, text := range []string{h.Version, h.Boot} {
		if !isPrintable(text) {
			return fmt.Errorf("the node reports %.40q as its version or boot, which is not understood; install the version of the front on the node", text)
		}
	}
	if h.Leaving != nil {
		if err := h.Leaving.Check(); err != nil {
			return err
		}
	}
	return CheckLabels(h.Labels)
}

// isPrintable reports whether a text of a node is short and has no control characters.
func isPrintable(text string) bool {
	return len(text) <= maxText && utf8.ValidString(text) && !strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f })
}
