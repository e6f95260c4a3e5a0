// Package views defines the JSON that both the console address and the control socket of a host answer with.
//
// # Terms
//
// A view is a JSON type that shows state of the host. An account is what one payer (identity.Identity) has used and
// has left. A viewer is the identity that a view is shown to; the operator sees all.
//
// # Types
//
// [Health] and [Space] show the Spaces. [Accounts] reads the views of one account: [Account], its ledger ([Entry]) and
// an [Explanation] of refused calls. Package console serves them to their owner, package control to the operator.
// [Read], [Answer] and [Refuse] are how a handler of either package reads a request and answers it.
//
// # Failures
//
// A mistake in a request is a [RequestError], or one of the errors of package people; Refuse answers these with their
// text. Every other error goes to the server's error handler, which logs it and answers a bare 500.
package views

import "spacehost/internal/stages"

// Space is one Space of the host.
type Space struct {
	Name   string `json:"name"`
	URL    string `json:"url"`
	Stage  string `json:"stage"`
	Reason string `json:"reason,omitempty"`
	PID    int    `json:"pid,omitempty"`
	// Gradio is the running version, empty before the Space has started.
	Gradio string `json:"gradio,omitempty"`
	// Native is false, and Why gives the reason, if the app's own queue does the work: the host does not see into it.
	Native bool   `json:"native"`
	Why    string `json:"why,omitempty"`
	// Isolation is the level in force: none, files, namespaces or users (docs/isolation.md).
	Isolation string `json:"isolation"`
	// EgressRefused describes the last destination that the Space was refused, and the remedy. Only the operator sees it.
	EgressRefused string `json:"egressRefused,omitempty"`
	// WaitsForNode is whether no machine may run the Space now. Reason gives the operator the cause.
	WaitsForNode bool `json:"waitsForNode,omitempty"`
	// Node is where the Space runs: the name of a node, or host for the host's own machine. It is absent while the Space waits for a
	// node, and on a host without a cluster. Only the operator sees it.
	Node string `json:"node,omitempty"`
	// Queued counts the waiting Events.
	Queued int `json:"queued"`
	// Paused is set while operators have paused the Space.
	Paused *stages.Pause `json:"paused,omitempty"`

	// Page is the URL to open first: URL and base_path of the front matter. Title, Header (mini or default; empty: default)
	// and FullWidth are keys of the same name, for a console that frames the page.
	Page      string `json:"page"`
	Title     string `json:"title"`
	Header    string `json:"header,omitempty"`
	FullWidth bool   `json:"fullWidth"`
	// Emoji, ColorFrom, ColorTo and ShortDescription are keys of the front matter, for the card of the Space. The colours are the names
	// of the Hub's palette.
	Emoji            string `json:"emoji,omitempty"`
	ColorFrom        string `json:"colorFrom,omitempty"`
	ColorTo          string `json:"colorTo,omitempty"`
	ShortDescription string `json:"shortDescription,omitempty"`
	SDKVersion       string `json:"sdkVersion,omitempty"`
	// Hardware is the Hub's name: zero-a10g, or cpu-basic without GPUs. Sizes are those that its GPU functions request.
	Hardware string   `json:"hardware"`
	Sizes    []string `json:"sizes,omitempty"`
	// Visibility is public, protected or private.
	Visibility string `json:"visibility"`
}

// Health is the answer of GET /healthz.
type Health struct {
	// Status is ok; degraded: see Reasons; or maintenance: operators have drained every GPU, and nothing else is wrong. Each is
	// answered with 200: the host works, and a load balancer must not take its other Spaces away.
	Status      string `json:"status"`
	Maintenance string `json:"maintenance,omitempty"` // the reasons and the times
	// Reasons are sentences: why no GPU can be lent, and which Spaces do not run or do not answer.
	Reasons []string `json:"reasons,omitempty"`
	// Unresponsive names the Spaces that do not answer.
	Unresponsive []string `json:"unresponsive,omitempty"`
	Spaces       []Space  `json:"spaces"`
}

// Short returns the part of a Lease's ID that may be shown. The whole ID is a credential.
func Short(lease string) string { return lease[:min(8, len(lease))] }

// Each returns the views of all. An empty list stays a list: [] in JSON, never null.
func Each[A, B any](all []A, view func(A) B) []B {
	views := make([]B, 0, len(all))
	for _, v := range all {
		views = append(views, view(v))
	}
	return views
}
