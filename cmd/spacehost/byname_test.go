package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"spacehost/internal/views"
)

// TestByName connects the real gradio_client by Space name, from outside and from within a Space. Within a Space, gradio_client
// forwards the visitor's token by itself since version 2.
func TestByName(t *testing.T) { eachLine(t, byName) }

func byName(t *testing.T, line string) {
	to := t.TempDir()
	tiers := filepath.Join(to, "tiers.yaml")
	if err := os.WriteFile(tiers, []byte("base: 2026-04\ntiers: {free: {quota: 30}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := startOn(t, line, t.TempDir(), onGradio(t, to, line, "testdata/spaces/by-name"), onGradio(t, to, line, viaDir+"/space-b"), "--by-name", "--quota", tiers)
	t.Cleanup(p.stop)
	p.awaitReady()
	v := &callers{product: p, t: t}
	visitor := p.client()
	if got := visitor.ok("/work", 1); got != "Space B had a GPU for 1 s" {
		t.Errorf("by name from within: %q", got)
	}
	// gradio_client 1 looks up the visitor's request in another thread and does not find it (client.py, submit). The Space
	// itself pays, as on the Hub.
	payer, via := "local", "by-name"
	if line == "v5" {
		payer, via = "space:by-name", ""
	}
	paid := v.settled(payer)
	if len(paid) != 1 || paid[0].Space != "space-b" || paid[0].Function != "work" || paid[0].Via != via || paid[0].ChargedSeconds < 1 {
		t.Errorf("the ledger of %s: %+v, want one second at space-b via %q", payer, paid, via)
	}
	if got := visitor.ok("/load", 1); got != "Space B had a GPU for 1 s" {
		t.Errorf("by gr.load: %q", got)
	}
	before := len(v.settled("local"))
	if got := visitor.ok("/download"); !strings.Contains(got, "this is spacehost and not the Hub") {
		t.Errorf("a download within a Space: %q", got)
	}
	runCLI(t, p, "user", "add", "pia", "--tier", "pro")
	checkOutsideProgram(t, p, strings.TrimSpace(runCLI(t, p, "token", "create", "pia")))
	if paid := v.settled("user:pia"); len(paid) != 1 || paid[0].Space != "space-b" || paid[0].Via != "" {
		t.Errorf("pia's ledger: %+v, want her call", paid)
	}
	if paid := v.settled("local"); len(paid) != before+1 || paid[0].Via != "" {
		t.Errorf("the local visitor's ledger: %+v, want the call without a token as the newest line", paid)
	}
	if line != "v5" {
		checkDelegatedRefusal(t, p, visitor)
	}
}

// checkOutsideProgram runs a program of the user pia on this machine, outside any Space.
func checkOutsideProgram(t *testing.T, p *product, token string) {
	t.Helper()
	command := exec.CommandContext(t.Context(), environmentOf(t, p.line), filepath.Join("testdata", "clients", "by_name.py"), token)
	command.Env = append(os.Environ(), "HF_ENDPOINT="+p.Console, "HOME="+t.TempDir(), "HF_HOME="+t.TempDir(), "NO_PROXY=127.0.0.1", "GRADIO_ANALYTICS_ENABLED=False")
	command.Stderr = p
	out, err := command.Output()
	var got map[string]any
	if err != nil || json.Unmarshal(out, &got) != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for what, want := range map[string]string{
		"whoami": "pia", "stranger": "Invalid user token", "predict": "Space B had a GPU for 0.1 s", "without": "Space B had a GPU for 0.1 s",
		"nowhere": "RepositoryNotFoundError: ", "stage": "RUNNING", "model": "this is spacehost and not the Hub", "file": "this is spacehost and not the Hub",
		"write": "this is spacehost and not the Hub",
	} {
		if value, _ := got[what].(string); !strings.Contains(value, want) {
			t.Errorf("%s: %q, want %q", what, value, want)
		}
	}
	if got["quota"] != 1500.0 {
		t.Errorf("quota: %v, want pia's 1500 s", got["quota"])
	}
}

// checkDelegatedRefusal checks that B's refusal names the payer and the Space in which the call was made.
func checkDelegatedRefusal(t *testing.T, p *product, visitor *client) {
	t.Helper()
	k := visitor.submit("/work", 300) // B declares 10 s
	awaitActive(t, p)
	p.advance("13s", "13s")
	k.wait()
	if r := visitor.call("/work", 1); !r.Failed {
		t.Fatalf("a call was granted although half of the 30 s is spent via other Spaces: %s", r.Value)
	}
	var explanation views.Explanation
	if err := json.Unmarshal([]byte(runCLI(t, p, "explain", "local", "--via", "by-name", "--space", "space-b", "--json")), &explanation); err != nil {
		t.Fatal(err)
	}
	if len(explanation.Refusals) != 1 || explanation.Refusals[0].Space != "space-b" || explanation.Refusals[0].Via != "by-name" || explanation.Refusals[0].Identity != "local" ||
		len(explanation.Calls) != 1 || explanation.Calls[0].Fits || explanation.Calls[0].Why != explanation.Refusals[0].Text {
		t.Errorf("explained: %+v %+v", explanation.Refusals, explanation.Calls)
	}
}
