package main

import "spacehost/internal/dashboard"

// state is how the answers of a story arrive.
type state string

const (
	filled      state = "filled"
	empty       state = "empty"
	loading     state = "loading"     // no answer arrives
	failing     state = "error"       // each answer is a refusal, and no topic can be read
	stale       state = "stale"       // the values are there, and the topics cannot be read any more
	lost        state = "lost"        // the connection breaks after the first values
	ended       state = "ended"       // the bearer is not valid any more
	unreachable state = "unreachable" // the first connection fails
	signedOut   state = "signed-out"
	hostile     state = "hostile" // texts that would run, hide or turn around
	long        state = "long"    // long names
	many        state = "many"    // 1,000 leases, people and lines
)

// story is one page in one state.
type story struct {
	page  string // as the address names it
	at    string // the detail that follows it, such as the name of a Space
	role  dashboard.Access
	state state
}

func (s story) name() string {
	name := s.page + "-" + string(s.role) + "-" + string(s.state)
	if s.at != "" {
		name = s.page + "-detail-" + string(s.role) + "-" + string(s.state)
	}
	return name
}

// pages are the pages of each role, as pages.js lists them.
var pages = map[dashboard.Access][]string{
	dashboard.Visitor: {"home", "ledger"},
	dashboard.Member:  {"home", "ledger", "spaces", "tokens"},
	dashboard.Admin:   {"home", "ledger", "spaces", "tokens", "gpus", "nodes", "line", "people", "usage", "audit", "settings"},
}

// details are the texts that follow a page in its address.
var details = map[string]string{"spaces": "sana-sprint", "people": "cleo", "nodes": "gpu-03"}

// stories lists all stories: each page of an admin in each state, and what differs for others.
func stories() (all []story) {
	for _, page := range pages[dashboard.Admin] {
		for _, s := range []state{filled, empty, loading, failing, stale, lost, hostile, long} {
			all = append(all, story{page: page, role: dashboard.Admin, state: s})
			if at := details[page]; at != "" && s != empty {
				all = append(all, story{page: page, at: at, role: dashboard.Admin, state: s})
			}
		}
	}
	for _, page := range []string{"home", "ledger", "gpus", "line", "people", "audit"} {
		all = append(all, story{page: page, role: dashboard.Admin, state: many})
	}
	for _, role := range []dashboard.Access{dashboard.Member, dashboard.Visitor} {
		for _, page := range pages[role] {
			all = append(all, story{page: page, role: role, state: filled}, story{page: page, role: role, state: empty})
		}
	}
	for _, s := range []state{ended, unreachable, signedOut} {
		all = append(all, story{page: "home", role: dashboard.Member, state: s})
	}
	return all
}
