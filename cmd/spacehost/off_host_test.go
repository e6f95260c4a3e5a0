package main

import (
	"context"
	"encoding/json"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
)

// loadedByStock are the hosts that pages of stock Gradio request for every visitor of every app, without the name of
// the Space in the URL: the fonts of the default theme, the style that preconnects to them, and the frame resizer.
var loadedByStock = []string{"fonts.googleapis.com", "fonts.gstatic.com", "cdnjs.cloudflare.com"}

// TestPagesRequestNothingElsewhere opens pages in a real browser. Stock Gradio sends SPACE_ID to the Hub from there;
// under the host no request leaves loopback, but for those of loadedByStock. One test per Gradio, with and without a
// login.
func TestPagesRequestNothingElsewhere(t *testing.T) {
	t.Parallel()
	for _, line := range allLines("v4", "v5", "v6") {
		for _, name := range []string{"open", "login"} {
			t.Run(line+"/"+name, func(t *testing.T) {
				dir := writeNamedSpace(t, "secret-name", gradioVersions[line], offHostApps[name])
				p := runProduct(t, dir, "--gpus", "none", "--python", environmentOf(t, line))
				for _, address := range offHost(t, p.URL, offHostSeen[name]) {
					if !slices.Contains(loadedByStock, hostOf(t, address)) || strings.Contains(address, "secret-name") {
						t.Errorf("the page requests %s", address)
					}
				}
			})
		}
		t.Run(line+"/stock", func(t *testing.T) { // the request that the host prevents
			dir := writeNamedSpace(t, "secret-name", gradioVersions[line], offHostApps["open"])
			stock := startStock(t, environmentOf(t, line), dir, onSpaces("secret-name")...)
			want := "https://huggingface.co/api/spaces/local/secret-name"
			if got := offHost(t, stock.ready(), offHostSeen["open"]); !slices.Contains(got, want) {
				t.Errorf("requests of stock Gradio: %q, want %s among them", got, want)
			}
		})
	}
}

// TestJSClientSendsNoTokenElsewhere connects with @gradio/client and a token. With the space_id of stock Gradio it sends the
// token to the Hub, to exchange it there.
func TestJSClientSendsNoTokenElsewhere(t *testing.T) {
	t.Parallel()
	node := requireProgram(t, "Node", "node", "nodejs")
	script := filepath.Join(nodePackages(t, "off_host.mjs"), "off_host.mjs")
	dir := writeNamedSpace(t, "secret-name", gradioVersions["v6"], frontApp)
	p := runProduct(t, dir, "--gpus", "none", "--python", environment(t))
	runCLI(t, p, "user", "add", "ada")
	token := strings.TrimSpace(runCLI(t, p, "token", "create", "ada"))
	requests := func(url string) (elsewhere []string) {
		cmd := exec.Command(node, script, url, token)
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		var all []string
		if bad := json.Unmarshal(out, &all); err != nil || bad != nil {
			t.Fatalf("%v, %v: %s", err, bad, out)
		}
		return slices.DeleteFunc(all, func(address string) bool { return isLocalAddress(t, address) })
	}
	if got := requests(p.URL); len(got) > 0 {
		t.Errorf("@gradio/client requests %q", got)
	}
	stock := startStock(t, environment(t), dir, onSpaces("secret-name")...)
	if got := requests(stock.ready()); !slices.Contains(got, "https://huggingface.co/api/spaces/local/secret-name/jwt") {
		t.Errorf("@gradio/client under stock Gradio requests %q, want .../jwt", got)
	}
}

var offHostApps = map[string]string{
	"open":  "import gradio as gr\nwith gr.Blocks() as demo:\n    gr.Textbox(elem_id='seen')\ndemo.launch()\n",
	"login": "import gradio as gr\nwith gr.Blocks() as demo:\n    gr.Textbox()\ndemo.launch(auth=('ada', 'secret'))\n",
}

// offHostSeen is what shows that a page is complete.
var offHostSeen = map[string]chromedp.CSS{"open": "#seen", "login": "input[type=password]"}

// writeNamedSpace writes a Space with one app file.
func writeNamedSpace(t *testing.T, name, gradio, app string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for file, text := range map[string]string{"app.py": app, "README.md": "---\nsdk: gradio\nsdk_version: " + gradio + "\n---\n"} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// offHost opens a page as a visitor does and returns the URLs that it requests from other machines within two seconds
// of being complete.
func offHost(t *testing.T, page string, complete chromedp.CSS) []string {
	t.Helper()
	ctx, _ := browser(t)
	var mu sync.Mutex
	var requested []string
	err := chromedp.Listen(ctx, func(event any) {
		if sent, ok := event.(*network.EventRequestWillBeSent); ok {
			mu.Lock()
			defer mu.Unlock()
			requested = append(requested, sent.Request.URL)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	shown, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := chromedp.Do(shown, chromedp.Navigate(page), chromedp.WaitVisible(complete)); err != nil {
		t.Fatalf("open %s: %v", page, err)
	}
	time.Sleep(2 * time.Second) // the header of Spaces is requested after the page is shown
	mu.Lock()
	defer mu.Unlock()
	return slices.DeleteFunc(requested, func(address string) bool { return isLocalAddress(t, address) })
}

// isLocalAddress reports addresses on loopback, and those that are no request to a machine, such as data:.
func isLocalAddress(t *testing.T, address string) bool {
	t.Helper()
	if !strings.HasPrefix(address, "http") && !strings.HasPrefix(address, "ws") {
		return true
	}
	host := hostOf(t, address)
	return host == "localhost" || net.ParseIP(host).IsLoopback()
}

func hostOf(t *testing.T, address string) string {
	t.Helper()
	parsed, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	return parsed.Hostname()
}
