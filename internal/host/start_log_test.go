package host

import (
	"bufio"
	"encoding/json"
	"os"
	"testing"

	"spacehost/internal/config"
	"spacehost/internal/control"
)

// logged returns the lines of the host's log with that message.
func logged(t *testing.T, h *Host, message string) (found []map[string]any) {
	t.Helper()
	f, err := os.Open(h.state.path("logs", "spacehost.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var line map[string]any
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			t.Fatalf("%s: %v", lines.Text(), err)
		}
		if line["msg"] == message {
			found = append(found, line)
		}
	}
	return found
}

// TestLogNamesConfigurationAndActor checks the line of a start, that of a reload with another digest, and that of an action.
func TestLogNamesConfigurationAndActor(t *testing.T) {
	r := startReloadHost(t, labOf("", spaceOne))
	digest := config.Digest(*r.settings(), *r.tiers.Load())
	starts := logged(t, r.Host, "host starts")
	if len(starts) != 1 || starts[0]["digest"] != digest || starts[0]["configuration"] != r.file || starts[0]["version"] == "" || starts[0]["actor"] == "" {
		t.Errorf("the start logs %v, want one line with digest %s", starts, digest)
	}
	r.write(labOf("keep: 5d", spaceOne))
	answer, err := r.ReloadBy(t.Context(), "SIGHUP")
	if err != nil {
		t.Fatal(err)
	}
	reloads := logged(t, r.Host, "configuration reloaded")
	if len(reloads) != 1 || reloads[0]["digest"] != answer.Digest || answer.Digest == digest || reloads[0]["by"] != "SIGHUP" {
		t.Errorf("the reload logs %v, answers %s, and the start had %s", reloads, answer.Digest, digest)
	}
	if now := config.Digest(*r.settings(), *r.tiers.Load()); now != answer.Digest {
		t.Errorf("the digest in force is %s, the reload answered %s", now, answer.Digest)
	}
	r.recordAction(control.Action{
		Actor: "ada", Route: "POST /people/:name/tier", Params: map[string]string{"name": "ben"}, Fields: map[string]any{"tier": "pro"}, Status: 404,
	})
	actions := logged(t, r.Host, "operator action")
	if len(actions) != 2 || actions[0]["actor"] != "SIGHUP" || actions[0]["action"] != "POST /reload" {
		t.Fatalf("the actions log %v, want the reload and the change", actions)
	}
	actions = actions[1:]
	if actions[0]["actor"] != "ada" || actions[0]["action"] != "POST /people/:name/tier" || actions[0]["status"] != 404.0 {
		t.Errorf("an action logs %v", actions)
	}
	if params, ok := actions[0]["params"].(map[string]any); !ok || params["name"] != "ben" {
		t.Errorf("its parameters: %v", actions[0])
	}
}
