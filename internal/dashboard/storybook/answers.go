package main

import (
	"net/http"

	"spacehost/internal/control"
	"spacehost/internal/dashboard"
	"spacehost/internal/views"
)

// answer is the canned answer of an endpoint.
type answer struct {
	method, path string
	value        func(values) any
}

// admin returns the answer of an endpoint of package control, as admins have it.
func admin[Body, Answer any](at control.Endpoint[Body, Answer], value func(values) Answer) answer {
	return answer{at.Method, "/api/spacehost/admin" + at.Path, func(v values) any { return value(v) }}
}

// own returns the answer of an endpoint of a person.
func own[Answer any](path string, value func(values) Answer) answer {
	return answer{http.MethodGet, "/api/spacehost/" + path, func(v values) any { return value(v) }}
}

// answers lists the endpoints that pages read. The others refuse, as all changes do.
func answers() []answer {
	return []answer{
		own("me", values.me),
		own("quota", values.account),
		own("ledger", values.ledger),
		own("explain", values.explanation),
		own("spaces", values.spaces),
		own("advice", values.advices),
		own("spaces/:name/api", values.spaceAPI),
		own("tokens", values.tokens),

		admin(control.ShowTimeline, values.timeline),
		admin(control.ListLeases, values.leases),
		admin(control.ListGPUs, values.gpus),
		admin(control.ListPeople, values.people),
		admin(control.ListTiers, values.tiers),
		admin(control.ListTokens, values.tokens),
		admin(control.ListBalances, values.balances),
		admin(control.ShowLedger, values.ledger),
		admin(control.ShowAccount, values.account),
		admin(control.ExplainAccount, values.explanation),
		admin(control.ListTokensOf, values.tokensOf),
		admin(control.ListWebhooks, func(values) []control.Webhook { return []control.Webhook{} }),
		admin(control.ShowHealth, func(v values) views.Health { return views.NewHealth(v.spaces(), views.GPUs{}) }),
		admin(control.ShowUsage, values.usage),
		admin(control.ShowSpace, values.spaceDetail),
		admin(control.ReadLog, values.log),
		admin(control.ListAudit, values.audit),
		admin(control.ShowHost, values.host),
		admin(control.ShowSettings, values.settings),
		admin(control.PreviewReload, values.preview),
		admin(control.RunDoctor, values.findings),
		admin(control.MeasureState, values.folders),
		admin(control.ListNodes, values.nodes),
		admin(control.ExplainNode, values.nodeExplanation),
		admin(control.ListPools, values.pools),
	}
}

// topicsOf lists the topics that the stream sends to a person.
func topicsOf(v values) []event {
	account := event{string(dashboard.Account), dashboard.OwnView{Account: v.account(), Spaces: v.spaces(), Refusals: v.refusals()}}
	if v.role != dashboard.Admin {
		return []event{account}
	}
	return []event{
		{string(dashboard.Spaces), v.spaces()},
		{string(dashboard.Leases), v.leases()},
		{string(dashboard.GPUs), v.gpus()},
		{string(dashboard.People), v.people()},
		{string(dashboard.Audit), control.AuditState{Latest: int64(v.rows)}},
		account,
	}
}
