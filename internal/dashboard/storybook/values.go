package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/url"
	"time"

	"spacehost/internal/dashboard"
	"spacehost/internal/lease"
	"spacehost/internal/people"
	"spacehost/internal/views"
)

// values makes the values of one story. They are the same at each call.
type values struct {
	now  time.Time
	role dashboard.Access
	text func(string) string // changes each text that a person or a Space has chosen
	rows int                 // of long lists; 0: all lists are empty
	asks url.Values          // the query of the request
}

var (
	names   = []string{"ada", "ben", "cleo", "dana", "emil", "femi", "gita", "hugo"}
	tiers   = []string{"pro", "free", "team", "free", "free", "pro", "team", "free"}
	reasons = []string{"released", "released", "released", "released", "expired", "released", "released", "revoked"}
)

// place is a function of a Space.
type place struct {
	space, title, function string
	declared, used         float64 // seconds
}

var places = []place{
	{"sana-sprint", "Sana Sprint: images in a second", "generate", 15, 6.2},
	{"whisper-large", "Whisper large v3", "transcribe", 60, 34.8},
	{"flux-lora", "FLUX LoRA laboratory", "train_step", 120, 88.4},
	{"hello-zerogpu", "Hello ZeroGPU", "greet", 10, 1.3},
}

func (v values) ago(d time.Duration) time.Time { return v.now.Add(-d) }

func (v values) random() *rand.Rand { return rand.New(rand.NewPCG(7, 21)) }

// list returns n values.
func list[T any](n int, make func(int) T) []T {
	all := []T{}
	for i := range n {
		all = append(all, make(i))
	}
	return all
}

func short(i int) string { return fmt.Sprintf("%08x", uint32(i+1)*2654435761) }

func (v values) payer(i int) string { return "user:" + v.text(names[i%len(names)]) }

func (v values) me() dashboard.Me {
	name := map[dashboard.Access]string{dashboard.Admin: "ada", dashboard.Member: "ben", dashboard.Visitor: "a visitor"}[v.role]
	return dashboard.Me{Identity: "user:" + v.text(name), Name: v.text(name), Access: v.role, Scope: people.ScopeAll, Nodes: v.role == dashboard.Admin}
}

// account is at 14:05 of a day whose window opened at 06:41.
func (v values) account() views.Account {
	a := views.Account{
		Identity: v.me().Identity, Tier: "pro", BaseSeconds: 1500, LeftSeconds: 1500, LeftMinutes: 25, LongestSeconds: 1500, Priority: 2, Now: v.now,
		Functions: []views.Fit{}, Open: []views.Open{}, Charges: []views.Charge{}, Advice: []views.Advice{},
	}
	if v.rows == 0 {
		return a
	}
	opened := v.ago(7*time.Hour + 24*time.Minute)
	resets := opened.Add(24 * time.Hour)
	a.ChargedSeconds, a.HeldSeconds, a.LeftSeconds, a.LeftMinutes, a.CreditSeconds = 612.4, 75, 812.6, 13.5, 300
	a.OpenedAt, a.ResetsAt, a.ResetsIn = &opened, &resets, views.Countdown(resets.Sub(v.now))
	run := v.now.Add(5 * time.Hour)
	a.Runs = &views.Runs{Used: 41, Reserved: 2, Limit: 80, Remaining: 37, ResetsAt: &run, ResetsIn: views.Countdown(run.Sub(v.now)), Enforced: true}
	a.Functions = list(len(places), v.fit)
	a.Open = v.open()
	a.Charges = list(min(10, v.rows), func(i int) views.Charge {
		p := places[i%len(places)]
		return views.Charge{
			At: v.ago(time.Duration(i*11+1) * time.Minute), Lease: short(i), Space: v.text(p.space), Function: v.text(p.function), Factor: 1,
			DeclaredSeconds: p.declared, UsedSeconds: p.used, ChargedSeconds: p.used, Reason: reasons[i%len(reasons)],
		}
	})
	a.Advice = list(2, v.advice)
	return a
}

func (v values) fit(i int) views.Fit {
	p := places[i]
	return views.Fit{
		Space: v.text(p.space), Function: v.text(p.function), Size: "large", DeclaredSeconds: p.declared, From: views.FromDecorator, CostSeconds: p.declared,
		Calls: new(int(812 / p.declared)), CallsInTurn: new(int(812 / p.used)), UsedSeconds: new(p.used),
	}
}

func (v values) open() []views.Open {
	start, givesUp, deadline := v.now.Add(23*time.Second), v.now.Add(10*time.Minute), v.now.Add(41*time.Second)
	return []views.Open{
		{Lease: short(1), State: string(lease.Active), Space: v.text("whisper-large"), Function: v.text("transcribe"), HeldSeconds: 60, Deadline: &deadline},
		{Lease: short(4), State: string(lease.Waiting), Space: v.text("sana-sprint"), Function: v.text("generate"), HeldSeconds: 15,
			Forecast: &lease.Forecast{Rank: 1, Reason: lease.Node, Start: &start, GivesUp: givesUp}},
	}
}

func (v values) advice(i int) views.Advice {
	p := places[i]
	declare := math.Ceil(p.used + 4)
	return views.Advice{
		Space: v.text(p.space), Function: v.text(p.function), Size: "large", Calls: 214, DeclaredSeconds: p.declared, HeldSeconds: p.declared, LongestSeconds: p.used + 4,
		MeanSeconds: p.used, MedianSeconds: p.used - 1, MostSeconds: p.used + 3, Declare: &declare,
		Text: fmt.Sprintf("%s: 214 calls, declared %g s, used %.1f s at most; declare %g: less is held while a call runs", v.text(p.function), p.declared, p.used+4, declare),
	}
}

func (v values) explanation() views.Explanation {
	return views.Explanation{Account: v.account(), Waiting: 3, Calls: []views.Verdict{}, Refusals: v.refusals()}
}

func (v values) refusals() []views.Refusal {
	again := v.now.Add(3 * time.Hour)
	return list(min(2, v.rows), func(i int) views.Refusal {
		p := places[2-i]
		return views.Refusal{At: v.ago(time.Duration(i+1) * time.Hour), Identity: v.me().Identity, Space: v.text(p.space), Function: v.text(p.function),
			RequestedSeconds: 1400, LeftSeconds: 12.5, Again: &again, Text: "the call declares more seconds than are left"}
	})
}

func (v values) advices() []views.Advice { return list(min(v.rows, len(places)), v.advice) }

// ledger has a hold and a settlement of each call, and a grant.
func (v values) ledger() []views.Entry {
	return list(v.rows, func(i int) views.Entry {
		p := places[i/2%len(places)]
		settled := v.ago(time.Duration(i/2*11) * time.Minute)
		e := views.Entry{ID: int64(v.rows - i), At: settled, Identity: v.me().Identity, Lease: short(i / 2), Space: v.text(p.space), Function: v.text(p.function),
			Factor: 1, DeclaredSeconds: p.declared}
		switch {
		case i == 5:
			return views.Entry{ID: e.ID, At: e.At, Identity: e.Identity, Kind: "grant", Factor: 1, ReturnedSeconds: 300, Reason: v.text("for the demonstration"), By: "user:" + v.text("ada")}
		case i%2 == 1:
			e.Kind, e.HeldSeconds, e.At = "hold", p.declared, settled.Add(-time.Duration(p.used*float64(time.Second)))
		default:
			e.Kind, e.UsedSeconds, e.ChargedSeconds, e.ReturnedSeconds, e.Runs, e.Reason = "settle", p.used, p.used, p.declared-p.used, 1, reasons[i/2%len(reasons)]
		}
		return e
	})
}
