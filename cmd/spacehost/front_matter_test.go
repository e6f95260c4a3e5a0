package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	cdppage "github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
)

// frontMatterSpace writes a Space whose README.md has more keys.
func frontMatterSpace(t *testing.T, line, keys, app string) string {
	t.Helper()
	dir := writeNamedSpace(t, "front", gradioVersions[line], app)
	text := "---\nsdk: gradio\nsdk_version: " + gradioVersions[line] + "\n" + keys + "---\n"
	if err := os.WriteFile(filepath.Join(dir, "README.md"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

const isolated = "custom_headers:\n  cross-origin-embedder-policy: require-corp\n  cross-origin-opener-policy: same-origin\n  cross-origin-resource-policy: cross-origin\n"

const frontApp = `import gradio as gr
with gr.Blocks() as demo:
    name = gr.Textbox(elem_id="seen")
    name.submit(lambda x: x, name, name, api_name="echo")
demo.launch()
`

// TestHeadersOfTheFrontMatter: custom_headers and disable_embedding are on every kind of answer, and make a page
// cross-origin isolated in a real browser.
func TestHeadersOfTheFrontMatter(t *testing.T) {
	t.Parallel()
	for _, line := range allLines("v4", "v5", "v6") {
		t.Run(line, func(t *testing.T) {
			dir := frontMatterSpace(t, line, isolated+"disable_embedding: true\n", frontApp)
			p := runProduct(t, dir, "--gpus", "none", "--python", environmentOf(t, line))
			p.line = line
			for _, answer := range everyKindOfAnswer(t, p) {
				for name, want := range map[string]string{"Cross-Origin-Embedder-Policy": "require-corp", "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "cross-origin"} {
					if got := answer.Header.Values(name); len(got) != 1 || got[0] != want {
						t.Errorf("%s %s (%d): %s is %q, want %q", answer.Request.Method, answer.Request.URL, answer.StatusCode, name, got, want)
					}
				}
				if got := answer.Header.Values("Content-Security-Policy"); !slices.Contains(got, "frame-ancestors 'self'") {
					t.Errorf("%s %s (%d): policies %q", answer.Request.Method, answer.Request.URL, answer.StatusCode, got)
				}
			}
			ctx, _ := browser(t)
			if err := chromedp.Do(ctx, chromedp.Navigate(p.URL), chromedp.WaitVisible(chromedp.CSS("#seen"))); err != nil {
				t.Fatal(err)
			}
			yes, err := chromedp.Run(ctx, chromedp.Evaluate[bool]("crossOriginIsolated && typeof SharedArrayBuffer === 'function'"))
			if err != nil || !yes {
				t.Errorf("crossOriginIsolated is %t: %v", yes, err)
			}
			if framed := isFramed(t, p.URL); framed {
				t.Error("a page of another origin frames the Space")
			}
		})
	}
}

// everyKindOfAnswer asks for one of each: pages and files of the host and of the Space, a stream, an upload, and errors
// of the host, of the Space and of the edge.
func everyKindOfAnswer(t *testing.T, p *product) (answers []*http.Response) {
	t.Helper()
	ask := func(method, url, kind, body string) *http.Response {
		r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", kind)
		answer, err := http.DefaultTransport.RoundTrip(r) // follows no redirect
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { answer.Body.Close() })
		answers = append(answers, answer)
		return answer
	}
	for _, path := range []string{"/", "/config", "/theme.css", "/static/img/logo.svg", "/docs", "/nothing", "/static/nothing.js", "/__spacehost/whoami", "/startup-events"} {
		ask("GET", p.URL+path, "", "")
	}
	for _, path := range []string{"/info", "/file=/etc/passwd", "/queue/status", "/queue/data?session_hash=front", "/heartbeat/front"} {
		ask("GET", p.api()+path, "", "")
	}
	ask("POST", p.api()+"/queue/join", "application/json", `{"data":["x"],"fn_index":0,"session_hash":"front"}`)
	ask("POST", p.api()+"/queue/join", "application/json", `{`)
	ask("POST", p.api()+"/run/echo", "application/json", `{"data":["x"]}`)
	ask("POST", p.api()+"/cancel", "application/json", `{}`)
	ask("OPTIONS", p.api()+"/queue/join", "", "")
	var form bytes.Buffer
	w := multipart.NewWriter(&form)
	part, err := w.CreateFormFile("files", "a.txt")
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(part, "text") // to memory
	_ = w.Close()
	uploaded := ask("POST", p.api()+"/upload", w.FormDataContentType(), form.String())
	stored, err := io.ReadAll(uploaded.Body)
	if err != nil {
		t.Fatal(err)
	}
	ask("GET", p.api()+"/file="+strings.Trim(string(stored), `[]"`), "", "")
	return answers
}

// isFramed reports whether a page at another origin shows the Space in a frame.
func isFramed(t *testing.T, url string) bool {
	t.Helper()
	outer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(w, `<iframe src="%s" onload="document.title='loaded'"></iframe>`, url)
	}))
	defer outer.Close()
	ctx, _ := browser(t)
	if err := chromedp.Do(ctx, chromedp.Navigate(outer.URL)); err != nil {
		t.Fatal(err)
	}
	if _, err := chromedp.Run(ctx, chromedp.PollFunction[bool](`() => document.title === "loaded"`)); err != nil {
		t.Fatal(err)
	}
	tree, err := chromedp.Run(ctx, func(ctx context.Context, target *chromedp.Target) (tree cdppage.GetFrameTreeResult, err error) {
		err = target.Call(ctx, cdppage.GetFrameTree.Method, cdp.Empty{}, &tree)
		return tree, err
	})
	if err != nil || len(tree.FrameTree.ChildFrames) != 1 {
		t.Fatalf("frames: %+v, %v", tree.FrameTree, err)
	}
	return tree.FrameTree.ChildFrames[0].Frame.UnreachableURL == "" // a refused frame shows an error page of the browser
}

// TestOtherSpacesMayBeFramed is the counterpart: without disable_embedding the same frame shows the Space.
func TestOtherSpacesMayBeFramed(t *testing.T) {
	t.Parallel()
	p := runProduct(t, frontMatterSpace(t, "v6", "base_path: /about\nheader: mini\nfullWidth: false\nhf_oauth: true\n", frontApp), "--gpus", "none", "--python", environment(t))
	if !isFramed(t, p.URL) {
		t.Error("no page frames the Space")
	}
	space := p.health().Spaces[0]
	if space.Page != p.URL+"/about" || space.Header != "mini" || space.FullWidth {
		t.Errorf("view of the front matter: %+v", space)
	}
	want := "front: warning: hf_oauth: OAUTH_CLIENT_ID and OAUTH_CLIENT_SECRET not set, so sign-in with Hugging Face does not work and gr.LoginButton stops the app; " +
		"register an OAuth app with the redirect URL " + p.URL + "/login/callback, and set its values as Variable and Secret"
	if !strings.Contains(p.text(), want) {
		t.Errorf("output lacks %q", want)
	}
}

const oauthApp = `import os
import gradio as gr
names = ["OAUTH_CLIENT_ID", "OAUTH_CLIENT_SECRET", "OAUTH_SCOPES", "OPENID_PROVIDER_URL"]
with gr.Blocks() as demo:
    gr.LoginButton()
    out = gr.Textbox()
    out.submit(lambda: "|".join(os.environ.get(name, "-") for name in names), None, out, api_name="vars")
demo.launch()
`

// TestOAuthVariables: with the operator's app a LoginButton starts, with scopes and provider as on the Hub.
func TestOAuthVariables(t *testing.T) {
	t.Parallel()
	dir := frontMatterSpace(t, "v6", "hf_oauth: true\nhf_oauth_scopes: [email, openid]\n", oauthApp)
	p := runProduct(t, dir, "--gpus", "none", "--python", environment(t), "--variable", "OAUTH_CLIENT_ID=app", "--secret", "OAUTH_CLIENT_SECRET=hidden")
	if got := p.client().ok("/vars"); got != "app|hidden|openid profile email|https://huggingface.co" {
		t.Errorf("variables: %q", got)
	}
	if strings.Contains(p.text(), "warning: hf_oauth") {
		t.Error("a complete OAuth app gets a warning")
	}
}

// hubStandIn answers the download API of the Hub for one public repository.
type hubStandIn struct {
	*httptest.Server
	mu   sync.Mutex
	seen []string
}

const standInCommit = "11c5a3d5811f50298f278a704980280950aedb10"

var standInFiles = map[string]string{"config.json": `{"a": 1}`, "data/x.bin": "some weights"}

func newHubStandIn(t *testing.T) *hubStandIn {
	h := &hubStandIn{}
	h.Server = httptest.NewServer(http.HandlerFunc(h.answer))
	t.Cleanup(h.Close)
	return h
}

func (h *hubStandIn) answer(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	h.seen = append(h.seen, r.Method+" "+r.URL.Path+" "+r.Header.Get("Authorization"))
	h.mu.Unlock()
	fail := func(code string) {
		w.Header().Set("X-Error-Code", code)
		w.WriteHeader(http.StatusNotFound)
	}
	if api, ok := strings.CutPrefix(r.URL.Path, "/api/models/"); ok {
		if strings.HasPrefix(api, "some/model/tree/") { // huggingface_hub 1 lists the files there
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `[{"type":"file","path":"config.json","oid":"a","size":8},{"type":"file","path":"data/x.bin","oid":"b","size":12}]`)
			return
		}
		if api != "some/model" && api != "some/model/revision/main" && api != "some/model/revision/"+standInCommit {
			code := "RepoNotFound"
			if strings.HasPrefix(api, "some/model/revision/") {
				code = "RevisionNotFound"
			}
			fail(code)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"id":"some/model","sha":%q,"private":false,"siblings":[{"rfilename":"config.json"},{"rfilename":"data/x.bin"}]}`, standInCommit)
		return
	}
	path, ok := strings.CutPrefix(r.URL.Path, "/some/model/resolve/")
	revision, name, _ := strings.Cut(path, "/")
	text, known := standInFiles[name]
	switch {
	case !ok:
		fail("RepoNotFound")
	case revision != "main" && revision != standInCommit:
		fail("RevisionNotFound")
	case !known:
		fail("EntryNotFound")
	default:
		w.Header().Set("X-Repo-Commit", standInCommit)
		w.Header().Set("ETag", fmt.Sprintf(`"%040x"`, len(name)))
		w.Header().Set("Content-Length", fmt.Sprint(len(text)))
		if r.Method == http.MethodGet {
			_, _ = io.WriteString(w, text)
		}
	}
}

const preloadApp = `import gradio as gr
from huggingface_hub import hf_hub_download
paths = [hf_hub_download("some/model", name, local_files_only=True) for name in ("config.json", "data/x.bin")]
with gr.Blocks() as demo:
    out = gr.Textbox()
    out.submit(lambda: open(paths[1]).read(), None, out, api_name="read")
demo.launch()
`

// TestPreloadFromHub downloads before the app starts, with the huggingface_hub of each Gradio, and without a token. The
// app then reads the files without the Hub, and a later start needs no Hub either.
func TestPreloadFromHub(t *testing.T) {
	t.Parallel()
	for _, line := range allLines("v4", "v5", "v6") {
		t.Run(line, func(t *testing.T) {
			hub, cache, state := newHubStandIn(t), t.TempDir(), t.TempDir()
			dir := frontMatterSpace(t, line, "preload_from_hub:\n  - some/model data/x.bin,config.json\n  - some/model\n  - some/model config.json "+standInCommit+"\n", preloadApp)
			env := []string{"HF_HOME=" + cache, "HF_ENDPOINT=" + hub.URL, "HF_TOKEN=hf_secret"}
			args := []string{"run", dir, "--addr", ":0", "--console-addr", ":0", "--gpus", "none", "--python", environmentOf(t, line)}
			p := startCommandWith(t, env, state, args...)
			p.awaitReady()
			p.line = line
			if got := p.client().ok("/read"); got != "some weights" {
				t.Errorf("/read: %q", got)
			}
			for _, want := range []string{"[1/3] downloading some/model: data/x.bin, config.json: done in", "[2/3] downloading some/model: done in", "[3/3] downloading some/model: config.json at 11c5a3d5: done in"} {
				if !strings.Contains(p.text(), want) {
					t.Errorf("output lacks %q", want)
				}
			}
			for _, one := range hub.seen {
				if !strings.HasSuffix(one, " ") {
					t.Errorf("the build sends a token: %s", one)
				}
			}
			p.stop()
			hub.Close()
			p = startCommandWith(t, env, state, args...)
			p.awaitReady()
			p.stop()
		})
	}
}

// TestPreloadFailures: a wrong line fails the build, in a sentence with the next step.
func TestPreloadFailures(t *testing.T) {
	t.Parallel()
	hub := newHubStandIn(t)
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	rows := []struct{ line, endpoint, want string }{
		{"other/model", hub.URL, "README.md: preload_from_hub: repository other/model does not exist, or is private or gated; name a public model repository"},
		{"other/model x.bin", hub.URL, "README.md: preload_from_hub: repository other/model (x.bin) does not exist, or is private or gated; name a public"},
		{"some/model y.bin", hub.URL, "README.md: preload_from_hub: repository some/model (y.bin) has no such file; correct the file names"},
		{"some/model config.json " + strings.Repeat("0", 40), hub.URL, "README.md: preload_from_hub: repository some/model (config.json) has no such commit; correct"},
		{"some/model", gone.URL, "README.md: preload_from_hub: the Hub cannot be reached to download some/model; check the network"},
		{"some/model config.json", gone.URL, "README.md: preload_from_hub: the Hub cannot be reached to download some/model (config.json); check the network"},
		{"some/model a b c", hub.URL, `README.md: preload_from_hub "some/model a b c" has 4 parts, not one to three; write repo`},
	}
	for _, row := range rows {
		t.Run(row.line, func(t *testing.T) {
			dir := frontMatterSpace(t, "v6", "preload_from_hub:\n  - "+row.line+"\n", frontApp)
			cmd := exec.Command(os.Args[0], "run", dir, "--addr", ":0", "--console-addr", ":0", "--gpus", "none", "--python", environment(t), "--state", t.TempDir())
			cmd.Env = append(productEnv(t), "HF_HOME="+t.TempDir(), "HF_ENDPOINT="+row.endpoint)
			out, err := cmd.CombinedOutput()
			if cmd.ProcessState.ExitCode() != 4 || !strings.Contains(string(out), "BUILD_ERROR: "+row.want) {
				t.Errorf("%v, exit %d, want 4 and %s:\n%s", err, cmd.ProcessState.ExitCode(), row.want, out)
			}
		})
	}
}
