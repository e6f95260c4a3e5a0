package main

import (
	"encoding/json"
	"math"
	"strings"
	"testing"

	"spacehost/internal/control"
	"spacehost/internal/views"
)

// compareUsage compares the usage of a host since its start, in which no account was reset, with the ledger, the quota and the metrics.
// No call may be running.
func (p *product) compareUsage() control.Usage {
	p.t.Helper()
	eventually(p.t, "each end is written", patience, func() bool {
		var ended float64
		for series, value := range p.metrics() {
			if strings.HasPrefix(series, "spacehost_leases_ended_total{") {
				ended += value
			}
		}
		return float64(controlJSON[control.Usage](p.t, p, "/usage").Total.Calls) == ended
	})
	byPerson, bySpace := controlJSON[control.Usage](p.t, p, "/usage?by=person"), controlJSON[control.Usage](p.t, p, "/usage?by=space")
	if byPerson.Total != bySpace.Total || byPerson.Total.UsedSeconds == 0 {
		p.t.Errorf("by person: %+v, by Space: %+v", byPerson.Total, bySpace.Total)
	}
	same := func(what string, got, want float64) {
		p.t.Helper()
		if math.Abs(got-want) >= 0.0005 {
			p.t.Errorf("%s: %.6f s in the usage, want %.6f s", what, got, want)
		}
	}
	charged := map[string]float64{}
	for _, b := range controlJSON[[]control.Balance](p.t, p, "/quota") {
		charged[b.Identity] = b.ChargedSeconds // no test has credits
	}
	for _, row := range byPerson.Rows {
		if row.Calls == 0 {
			continue // only refused
		}
		_, out, _ := p.cli("ledger", row.Key, "--kind", "settle", "--limit", "10000", "--json")
		var lines []views.Entry
		if err := json.Unmarshal([]byte(out), &lines); err != nil {
			p.t.Fatalf("ledger of %s: %v: %s", row.Key, err, out)
		}
		var sum views.Entry
		for _, line := range lines {
			sum.ChargedSeconds += line.ChargedSeconds
			sum.UsedSeconds += line.UsedSeconds
			sum.HeldSeconds += line.HeldSeconds
			sum.DeclaredSeconds += line.DeclaredSeconds
		}
		same("charged to "+row.Key+" by the ledger", row.ChargedSeconds, sum.ChargedSeconds)
		same("charged to "+row.Key+" by the quota", row.ChargedSeconds, charged[row.Key])
		same("used by "+row.Key, row.UsedSeconds, sum.UsedSeconds)
		same("held by "+row.Key, row.HeldSeconds, sum.HeldSeconds)
		same("declared by "+row.Key, row.DeclaredSeconds, sum.DeclaredSeconds)
		if row.Calls != len(lines) {
			p.t.Errorf("%s: %d calls, %d settlements", row.Key, row.Calls, len(lines))
		}
	}
	for _, row := range bySpace.Rows {
		var chargedSum, ended, kills float64
		for series, value := range p.metrics() {
			name, labels, _ := strings.Cut(series, "{")
			if !strings.Contains(labels, `space="`+row.Key+`"`) {
				continue
			}
			switch name {
			case "spacehost_gpu_charged_seconds_total":
				chargedSum += value
			case "spacehost_leases_ended_total":
				ended += value
			case "spacehost_worker_kills_total":
				kills += value
			}
		}
		same("charged in "+row.Key+" by the metrics", row.ChargedSeconds, chargedSum)
		if float64(row.Calls) != ended || float64(row.Kills) != kills {
			p.t.Errorf("%s: %d calls and %d kills in the usage, %v and %v in the metrics", row.Key, row.Calls, row.Kills, ended, kills)
		}
	}
	return byPerson
}

// showUsage opens the pages Ledger and Usage after calls of ben, one of which was refused.
func (l consoleLab) showUsage(t *testing.T, admin, member profile) {
	t.Helper()
	eventually(t, "the refusal is counted", patience, func() bool {
		return controlJSON[control.Usage](t, l.product, "/usage").Total.Refusals == 1
	})
	if u := l.compareUsage(); u.Total.Calls < 2 {
		t.Errorf("usage: %+v", u)
	}
	member.goTo("home")
	member.shows("300 s requested, the maximum per call is 210 s", patience)
	member.shows("Waiting does not help", patience)
	member.goTo("ledger")
	member.shows("2 calls: declared", patience) // of five and minute there is one each, and whole has two
	member.choose("Kind", "settle")
	member.shows("settled", patience)
	member.hides("td[data-heading=Kind]", "reserved", patience)
	member.choose("Function", "minute")
	member.hides("td[data-heading=Function]", "five", patience)
	admin.goTo("usage")
	admin.shows("ben", patience)
	admin.click("function")
	admin.shows("shown: minute", patience)
	admin.waits(".chart canvas", patience)
	if code, out, errOut := l.cli("usage", "--by", "function", "--since", "1d"); code != 0 || !strings.Contains(out, "shown/minute") || !strings.Contains(out, "shown/too_long") {
		t.Errorf("spacehost usage: exit code %d: %s%s", code, out, errOut)
	}
	if code, out, _ := l.cli("usage", "--csv", "--limit", "1"); code != 0 || !strings.HasPrefix(out, "name,key,space,calls,refusals,kills,declaredSeconds,usedSeconds,heldSeconds,chargedSeconds\nuser:ben,user:ben,,") {
		t.Errorf("spacehost usage --csv: exit code %d: %s", code, out)
	}
	for flag, want := range map[string]string{"--since=soon": `"soon" is not a time`, "--by=colour": "unknown by", "--limit=0": "is below 1", "--csv --json": "exclude each other"} {
		if code, out, errOut := l.cli(append([]string{"usage"}, strings.Fields(flag)...)...); code != 2 || !strings.Contains(errOut, want) {
			t.Errorf("spacehost usage %s: exit code %d: %s%s", flag, code, out, errOut)
		}
	}
}
