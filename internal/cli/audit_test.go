package cli

import (
	"strings"
	"testing"
	"time"

	"spacehost/internal/audit"
	"spacehost/internal/control"
	"spacehost/internal/people"
)

// TestTokenRightsCommand creates a limited token and lists what it may be used for.
func TestTokenRightsCommand(t *testing.T) {
	h := newTestHost(t)
	h.wantOutput(`added`, "user", "add", "ada")
	token := strings.TrimSpace(h.wantOutput(`^sph_`, "token", "create", "ada", "--scope", "call", "--space", "demo,other", "--expires", "30d").out)
	h.wantOutput(` ada +call at demo, other +20..-..-.. ..:.. +20..-..-.. ..:.. +never +no\n$`, "token", "list")
	if _, err := h.people.Use(t.Context(), token, people.ScopeCall, "demo"); err != nil {
		t.Errorf("at its Space: %v", err)
	}
	for _, row := range []struct {
		scope people.Scope
		space string
	}{{people.ScopeCall, "third"}, {people.ScopeRead, ""}} {
		if who, err := h.people.Use(t.Context(), token, row.scope, row.space); err == nil {
			t.Errorf("scope %s at %q: allowed as %s", row.scope, row.space, who)
		}
	}
}

// TestAuditCommand lists changes and refusals, without the text of a token that was typed in the wrong place.
func TestAuditCommand(t *testing.T) {
	h := newTestHost(t)
	h.wantOutput(`^No changes\.\n$`, "audit")
	h.wantOutput(`added`, "user", "add", "ada", "--tier", "pro")
	token := strings.TrimSpace(h.wantOutput(`^sph_`, "token", "create", "ada", "--label", "laptop").out)
	if got := h.spacehost("token", "revoke", token); got.code != ExitHost {
		t.Errorf("revoke by the text of a token: %+v", got)
	}
	got := h.wantOutput(`(?s)^AT +BY +FROM +ACTION +ON +VALUES +RESULT\n`+
		`.* root +cli +token\.revoke +sph_\.\.\. +- +refused \(404\): no token has the ID "sph_\.\.\."; .*\n`+
		`.* root +cli +token\.create +ada +label=laptop scope=all +done\n`+
		`.* root +cli +person\.add +ada +tier=pro +done\n$`, "audit", "--since", "1d")
	if strings.Contains(got.out, token[4:]) {
		t.Error("the token is in the audit log")
	}
	h.wantOutput(`^AT .*\n.*token\.revoke.*\n$`, "audit", "--limit", "1")
	h.wantOutput(`^\[{"id":3,.*"action":"token.revoke".*"status":404,.*"action":"person.add","object":"ada","fields":{"tier":"pro"},"status":201}\]\n$`, "audit", "--json")
	h.wantOutput(`^No changes\.\n$`, "audit", "--since", "2126-01-01T00:00:00Z")
}

// TestTokenBehindChange: the lists name the token with which a change was made.
func TestTokenBehindChange(t *testing.T) {
	for _, row := range []struct{ token, actor, creation string }{
		{"", "user:ada", "2026-11-20 12:00"},
		{"abc", "user:ada (token abc)", "2026-11-20 12:00 by token abc"},
	} {
		if got := formatActor(audit.Record{Actor: "user:ada", Token: row.token}); got != row.actor {
			t.Errorf("actor %q, want %q", got, row.actor)
		}
		at := time.Date(2026, 11, 20, 12, 0, 0, 0, time.Local)
		if got := formatCreation(control.Token{CreatedAt: at, CreatedBy: row.token}); got != row.creation {
			t.Errorf("creation %q, want %q", got, row.creation)
		}
	}
}
