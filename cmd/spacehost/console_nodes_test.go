package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"spacehost/internal/nodes"
	"spacehost/internal/people"
)

// TestConsoleNodes lets a node join with a token of the console's page, and drains, returns and forgets it there. A member does not see
// the page.
func TestConsoleNodes(t *testing.T) {
	t.Parallel()
	state := t.TempDir()
	ada, adaHash := people.NewToken()
	ben, benHash := people.NewToken()
	file := filepath.Join(t.TempDir(), "lab.yaml")
	writeFile(t, file, strings.NewReplacer("ADA", adaHash, "BEN", benHash).Replace(`
cluster: {listen: "127.0.0.1:0"}
gpus: {machine: mock:1xH200}
console: "127.0.0.1:0"
people:
  - {name: ada, tier: pro, admin: true, tokens: [ADA]}
  - {name: ben, tier: free, tokens: [BEN]}
spaces:
  - {folder: ., name: empty, address: "127.0.0.1:0"}
`))
	l := consoleLab{&reloadLab{product: startCommandWith(t, nil, state, "serve", "--config", file), file: file}, ada, ben, ""}
	t.Cleanup(l.kill)
	l.awaitReady()

	admin := l.open(t, ada)
	admin.goTo("nodes")
	admin.shows("No node has joined yet.", patience)
	admin.click("Create a join token")
	admin.do(chromedp.WaitVisible(chromedp.CSS(".copied code")))
	codes, err := chromedp.Run(admin.ctx, chromedp.Evaluate[[]string](`[...document.querySelectorAll(".copied code")].map((e) => e.innerText)`))
	if err != nil || len(codes) != 2 || !strings.Contains(codes[1], " --join "+l.Cluster+" ") {
		t.Fatalf("the page shows the token and the command %q, %v", codes, err)
	}
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte(codes[0]), 0o600); err != nil {
		t.Fatal(err)
	}
	agent := startAgent(t, l.Cluster, t.TempDir(), "--token-file", token, "--name", "gpu2", "--label", "h200")
	admin.showsRow(patience, "gpu2", "h200", "connected")

	admin.do(chromedp.Click(chromedp.CSS(`button[aria-label="Drain the node gpu2"]`)), chromedp.SendKeys(chromedp.CSS(`dialog[open] input[name="reason"]`), "new fan"), chromedp.Click(chromedp.CSS("dialog[open] button:not(.plain)")))
	admin.showsRow(patience, "gpu2", "drained by ada", "new fan")
	if n := l.node("gpu2"); n.Drained == nil || n.Drained.Reason != "new fan" || n.Drained.By != "user:ada" {
		t.Errorf("the drained node is %+v", n)
	}
	admin.do(chromedp.Click(chromedp.CSS(`a[href="#nodes/gpu2"]`)))
	admin.shows("spacehost node return gpu2", patience)
	admin.shows("token of ada", patience)
	admin.do(chromedp.Click(chromedp.CSS(`button[aria-label="Return the node gpu2"]`)))
	admin.shows("Yes: nothing on this node prevents it.", patience)
	screenshotPage(t, admin, "node")

	agent.kill()
	l.awaitNode("gpu2", nodes.Lost)
	admin.shows("lost", patience)
	admin.do(chromedp.Click(chromedp.CSS(`button[aria-label="Forget the node gpu2"]`)), chromedp.Click(chromedp.CSS(".confirm .danger")))
	admin.shows("The node gpu2 is forgotten.", patience)
	admin.shows("No node has joined yet.", patience)
	if out := l.must("audit"); !strings.Contains(out, "node.forget") || !strings.Contains(out, "node.drain") || !strings.Contains(out, "ada") {
		t.Errorf("spacehost audit prints\n%s", out)
	}

	admin.do(chromedp.Click(chromedp.CSS(".who button")))
	admin.signIn(ben)
	if shown, err := chromedp.Run(admin.ctx, chromedp.Evaluate[string](`document.querySelector("nav").innerText`)); err != nil || strings.Contains(shown, "Nodes") {
		t.Errorf("a member sees the pages %q, %v", shown, err)
	}
	if status, _ := request(t, "GET", l.Console+"/api/spacehost/admin/nodes", "", bearer(ben)); status != 404 {
		t.Errorf("the nodes for a member: %d, want 404", status)
	}
	if messages := admin.exceptions(); len(messages) > 0 {
		t.Errorf("uncaught exceptions: %q", messages)
	}
	l.stop()
}
