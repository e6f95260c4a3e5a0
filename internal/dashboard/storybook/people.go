package main

import (
	"fmt"
	"time"

	"spacehost/internal/audit"
	"spacehost/internal/control"
	"spacehost/internal/people"
)

// people has a removed person, private Spaces, overrides, and tokens that were never used.
func (v values) people() []control.Person {
	return list(min(v.rows, max(len(names), v.rows-30)), func(i int) control.Person {
		name := names[i%len(names)]
		if i >= len(names) {
			name = fmt.Sprintf("%s%d", name, i)
		}
		p := control.Person{Name: v.text(name), Tier: tiers[i%len(tiers)], CreatedAt: v.ago(time.Duration(i%90+1) * 24 * time.Hour), CreatedBy: "config", Source: "config", Tokens: (i + 2) % 5}
		if i%3 == 2 {
			p.Source, p.CreatedBy, p.QuotaSeconds = "operator", "user:"+v.text("ada"), new(1500.0)
			p.Spaces = []string{v.text("flux-lora")}
		}
		if p.Tokens > 0 {
			p.LastSeenAt = new(v.ago(time.Duration(i*i*17+1) * time.Minute))
		}
		p.Admin, p.Group = i == 0, v.text([]string{"operators", "vision", "speech"}[i%3])
		if i == 7 {
			p.Source = "former"
		}
		return p
	})
}

func (v values) tiers() []control.Tier {
	return []control.Tier{
		{Name: "free", QuotaSeconds: 300, LongestSeconds: 120, Runs: 20, Priority: 10, Concurrency: 1},
		{Name: "team", QuotaSeconds: 900, LongestSeconds: 600, Runs: 60, Priority: 30, Concurrency: 2},
		{Name: "pro", QuotaSeconds: 1500, LongestSeconds: 1500, Priority: 50, Concurrency: 4},
		{Name: "staff", Unlimited: true, LongestSeconds: 3600, Priority: 80},
	}
}

// tokens has each scope, one of the configuration, one that has expired, and one that was revoked.
func (v values) tokens() []control.Token {
	return list(min(v.rows, 6), func(i int) control.Token {
		t := control.Token{
			ID: short(i), Person: v.text(names[i%2]), Label: v.text([]string{"laptop", "notebook server", "CI", "phone", "workshop", "old laptop"}[i]), CreatedAt: v.ago(time.Duration(i*9+2) * 24 * time.Hour),
			Scope: string([]people.Scope{people.ScopeAll, people.ScopeCall, people.ScopeRead, people.ScopeCall, people.ScopeCall, people.ScopeAll}[i]), Current: i == 0, Declared: i == 2,
		}
		if i != 3 {
			t.LastUsedAt = new(v.ago(time.Duration(i*50+1) * time.Minute))
		}
		switch i {
		case 1:
			t.Spaces, t.ExpiresAt = []string{v.text("sana-sprint"), v.text("whisper-large")}, new(v.now.Add(81*24*time.Hour))
		case 3:
			t.ExpiresAt = new(v.now.Add(90 * time.Minute))
		case 4:
			t.ExpiresAt = new(v.ago(3 * 24 * time.Hour))
		case 5:
			t.RevokedAt = new(v.ago(26 * time.Hour))
		}
		return t
	})
}

// tokensOf are those of another person.
func (v values) tokensOf() []control.Token {
	all := v.tokens()
	for i := range all {
		all[i].Current, all[i].Declared = false, false
	}
	return all
}

// change is one entry of the audit log. who counts in names; below 0 it is a login name.
type change struct {
	who            int
	origin         audit.Origin
	action, object string
	fields         map[string]any
	status         int
	detail         string
}

// audit has changes of each origin, and refused ones.
func (v values) audit() []audit.Record {
	changes := []change{
		{0, audit.Console, "gpu.drain", string(uuid(2)), map[string]any{"reason": v.text("new fan"), "until": v.now.Add(2 * time.Hour).Format(time.RFC3339)}, 200, ""},
		{0, audit.Console, "grant", "user:" + v.text("gita"), map[string]any{"seconds": 300, "reason": v.text("for the demonstration")}, 200, ""},
		{1, audit.Console, "token.create", "", map[string]any{"label": v.text("notebook server"), "scope": "call", "spaces": []string{v.text("sana-sprint")}}, 201, ""},
		{-1, audit.CLI, "person.tier", v.text("hugo"), map[string]any{"tier": "gold"}, 400, `no tier "gold", there are: free, team, pro, staff`},
		{-1, audit.Host, "reload", "", map[string]any{"digest": "5be1c07a92d4"}, 200, ""},
		{0, audit.Console, "console.sign-in", short(0), map[string]any{"address": "192.0.2.17"}, 200, ""},
		{-1, audit.CLI, "space.restart", v.text("whisper-large"), map[string]any{"now": true}, 200, ""},
		{0, audit.Console, "lease.end", short(21), map[string]any{"reason": v.text("stuck")}, 409, "the lease has ended already"},
	}
	return list(v.rows, func(i int) audit.Record {
		c := changes[i%len(changes)]
		r := audit.Record{ID: int64(v.rows - i), At: v.ago(time.Duration(i*i*9+4) * time.Minute), Actor: v.text("root"), Origin: c.origin, Action: c.action, Object: c.object, Fields: c.fields, Status: c.status, Detail: c.detail}
		if c.who >= 0 {
			r.Actor = v.payer(c.who)
		}
		return r
	})
}

// balances fits the accounts: cleo's is that of values.account.
func (v values) balances() []control.Balance {
	return list(min(v.rows, len(names)), func(i int) control.Balance {
		base := map[string]float64{"free": 300, "team": 900, "pro": 1500}[tiers[i]]
		if i%3 == 2 {
			base = 1500 // its override
		}
		left := base * []float64{0.31, 0.52, 812.6 / 1500, 0.79, 0.57, 0.62, 0.77, 1}[i]
		return control.Balance{Identity: v.payer(i), Tier: tiers[i], BaseSeconds: base, ChargedSeconds: base - left, LeftSeconds: left, ResetsAt: new(v.now.Add(9 * time.Hour))}
	})
}
