package main

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/png"
	"io"
	"io/fs"
	"maps"
	"mime/multipart"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// The rows are Gradio's advisories, as black-box cases: what was sent, and that nothing of it works here. After
// each, and for every byte that comes back, one oracle holds; see attacker.check.
func TestAttacks(t *testing.T) {
	for _, line := range attackedLines() {
		t.Run(line, func(t *testing.T) {
			a := newAttacker(t, line)
			a.thorough = allAttacks()
			for _, row := range attacks {
				t.Run(row.name, func(t *testing.T) {
					a.on(t)
					row.run(a)
					a.unharmed()
				})
			}
		})
	}
}

// allAttacks: make attacks.
func allAttacks() bool { return os.Getenv("SPACEHOST_ATTACKS") == "all" }

func attackedLines() []string {
	if allAttacks() {
		return []string{"v6", "v5", "v4"}
	}
	return []string{"v6"}
}

var attacks = []struct {
	name string
	run  func(*attacker)
}{
	{"S01 CVE-2021-43831 files by a path", func(a *attacker) {
		for _, path := range []string{"/file/../../../../etc/passwd", "/file/.env", "/file=app.py", "/file=.env", "/file/app.py", "/file=" + a.space(".env")} {
			a.everyway("GET", path).below(500).not(200, "root:")
		}
	}},
	{"S02 CVE-2023-34239 any file, any address", func(a *attacker) {
		a.api("GET", "/file=/etc/passwd").is(403)
		a.everyway("GET", "/proxy="+a.listener+"/").not(200, "canary")
		a.api("GET", "/proxy="+a.listener+"/").is(403)
	}},
	{"S03 CVE-2023-51449 out of the upload's folder", func(a *attacker) {
		up := a.upload("okm", "text")
		for _, climb := range []string{"/../../../../../../../../../../etc/passwd", "/../../../../canary.txt", "/..%2f..%2f..%2f..%2fcanary.txt"} {
			a.everyway("GET", "/file="+filepath.Dir(up)+climb).not(200, "")
		}
	}},
	{"S04 CVE-2024-47164 neighbours, links, devices", func(a *attacker) {
		for _, path := range []string{
			a.space("allowed/../secret/canary.txt"), a.space("allowed2/canary.txt"), a.space("allowed/link/canary.txt"), a.space("allowed/link.txt"),
			"allowed/link/canary.txt", "allowed/../secret/canary.txt", // from the app's own folder
			"/proc/self/root/etc/passwd", "/proc/self/environ", "/proc/self/cwd/.env", a.space("allowed/fifo"), "/dev/zero", "/dev/stdin", a.uploads("fifo"),
		} {
			a.everyway("GET", "/file="+path).not(200, "")
			a.api("GET", "/file="+path).is(403)
			a.api("HEAD", "/file="+path).is(403)
		}
		a.api("GET", "/file="+a.space("allowed/a.txt")).is(200)
	}},
	{"S05 CVE-2025-23042 blocked in other letters", func(a *attacker) {
		for _, path := range []string{"allowed/blocked/canary.txt", "allowed/BLOCKED/canary.txt", "allowed/Blocked/Canary.txt", "allowed/./blocked//canary.txt", "allowed/tolink/canary.txt"} {
			a.api("GET", "/file="+a.space(path)).is(403)
		}
	}},
	{"S07 CVE-2026-28414 static files by an absolute path", func(a *attacker) {
		for _, start := range []string{"/static/", "/assets/", "/svelte/", "/favicon.ico/.."} {
			for _, path := range []string{"/etc/passwd", "/windows/win.ini", a.space(".env"), "../../../../../../../../etc/passwd"} {
				a.everyway("GET", start+path).below(500).not(200, "root:")
			}
		}
	}},
	{"S08 CVE-2024-47166 out of a component's folder", func(a *attacker) {
		for _, path := range []string{"../__init__.py", "%2e%2e%2f__init__.py", "..%2f..%2f__init__.py"} {
			for _, id := range []string{"1", "textbox", "0af32a1f"} {
				a.everyway("GET", "/custom_component/"+id+"/client/component/"+path).not(200, "import")
			}
		}
	}},
	{"S09 CVE-2024-1561 CVE-2024-34511 methods of a component", func(a *attacker) {
		for _, name := range []string{"move_resource_to_block_cache", "__init__", "postprocess", "__class__", "preprocess"} {
			for id := range 12 {
				a.posted("/component_server", fmt.Sprintf(`{"component_id":"%d","data":"/etc/passwd","fn_name":%q,"session_hash":"a"}`, id, name)).below(500).not(200, "")
			}
		}
	}},
	{"S10 a component as a way to other addresses", func(a *attacker) {
		for id := range 60 {
			a.posted("/component_server", fmt.Sprintf(`{"component_id":"%d","data":"%s/","fn_name":"download_temp_copy_if_needed","session_hash":"a"}`, id, a.listener)).not(200, "")
		}
	}},
	{"S11 CVE-2024-1728 a file by its path, in the queue", func(a *attacker) {
		for _, secret := range append(a.secrets(), a.p.State+"/canary.png") {
			for _, api := range []string{"file", "binary", "image", "video", "gallery", "download", "chat", "multimodal", "json"} {
				for _, value := range fileData(secret) {
					if out := a.event(api, value); strings.Contains(out, "<class") || strings.Contains(out, "canary.png") && strings.Contains(out, `"success":true`) && api == "image" {
						a.t.Errorf("%s took %s: %s", api, value, out)
					}
				}
			}
		}
		if out := a.event("json", `{"path":"/users/7","meta":{"page":1}}`); a.prefix != "" /* 4 refuses it */ && !strings.Contains(out, `"/users/7"`) { // an app's own JSON
			a.t.Errorf("an app's own path: %s", out)
		}
	}},
	{"S12 CVE-2024-0964 a file by its path, past the queue", func(a *attacker) {
		for _, api := range []string{"file", "binary", "image", "json"} {
			for _, value := range fileData(a.secrets()[0]) {
				for _, path := range []string{"/run/" + api, "/api/" + api, "/call/" + api, "/run/predict", "/api/predict"} {
					a.posted(path, fmt.Sprintf(`{"data":[%s],"session_hash":"s12"}`, value)).below(500)
				}
				a.posted("/call/v2/"+api, fmt.Sprintf(`{"value":%s}`, value)).below(500)
			}
		}
	}},
	{"S12 the same, with the name or number of another function", func(a *attacker) {
		picture := fmt.Sprintf(`{"path":%q}`, a.p.State+"/canary.png")
		for _, index := range []string{fmt.Sprint(a.fns["image"]), fmt.Sprintf(`"%d"`, a.fns["image"]), fmt.Sprintf(`%d.0`, a.fns["image"])} {
			a.sent("POST", a.prefix+"/run/json", "application/json", fmt.Sprintf(`{"data":[%s],"fn_index":%s}`, picture, index)).is(403)
			a.sent("POST", a.prefix+"/queue/join", "application/json", fmt.Sprintf(`{"data":[%s],"fn_index":%s,"session_hash":"x"}`, picture, index)).is(403)
		}
		a.sent("POST", a.prefix+"/call/image", "application/json", fmt.Sprintf(`{"data":[%s],"fn_index":%d}`, picture, a.fns["json"])).is(403)
		a.sent("POST", a.prefix+"/run/json", "application/json", fmt.Sprintf(`{"data":[%s,NaN],"fn_index":%d}`, picture, a.fns["image"])).is(403)
		a.sent("POST", a.prefix+"/call/json", "application/json", `{"data":[{"path":"/users/7"}]}`).is(200)
	}},
	{"S12 the same, as an MCP tool", func(a *attacker) {
		if a.prefix == "" {
			a.t.Log("Gradio 4 has no MCP")
			return
		}
		tools := a.tools()
		if len(tools) < len(a.fns)/2 {
			a.t.Errorf("tools: %v", tools)
		}
		secret := a.secrets()[0]
		for name, argument := range tools { // of which each is a function above
			for _, value := range append(fileData(secret)[:3], fmt.Sprintf("%q", secret), fmt.Sprintf("%q", a.listener+"/a.png")) {
				a.rpc("tools/call", fmt.Sprintf(`{"name":%q,"arguments":{%q:%s}}`, name, argument, value))
			}
		}
	}},
	{"S13 CVE-2024-51751 a file as bytes", func(a *attacker) {
		marked, plain := `{"path":"/etc/passwd","meta":{"_type":"gradio.FileData"}}`, `{"path":"/etc/passwd"}`
		a.posted("/run/binary", `{"data":[`+marked+`]}`).is(403)
		for _, value := range []string{marked, plain, `{"path":"/etc/passwd","meta":{"_type":"gradio.\u0046ileData"}}`} {
			a.event("binary", value)
		}
		utf16 := []byte{}
		for _, b := range []byte(`{"data":[` + marked + `]}`) {
			utf16 = append(utf16, b, 0)
		}
		a.posted("/run/binary", string(utf16)).is(400)
	}},
	{"S14 CVE-2024-4941 a file in a string", func(a *attacker) {
		for _, secret := range a.secrets() {
			for _, value := range fileData(secret) {
				for range 10 {
					text, _ := json.Marshal(value)
					value = string(text)
					a.event("text_to_json", value)
					if len(value) > 1<<14 {
						break
					}
				}
			}
		}
	}},
	{"S15 CVE-2024-47868 a path that the app hands on", func(a *attacker) {
		for _, secret := range append(a.secrets(), "/etc/passwd", "/proc/self/environ") {
			for _, kind := range []string{"download", "audio", "editor", "video", "model", "file", "upload", "code", "gallery", "multimodal", "chat"} {
				text, _ := json.Marshal(secret)
				a.event("text_to_"+kind, string(text))
			}
		}
	}},
	{"S16 CVE-2025-48889 flagging a device", func(a *attacker) {
		flagged := 0
		for _, api := range a.apis() {
			if !isFlag(api) {
				continue
			}
			flagged++
			for _, path := range append(a.secrets(), "/dev/urandom") {
				for _, value := range fileData(path)[:3] {
					if out := a.event(api, value, `"x"`, `"y"`); strings.Contains(out, `"success":true`) {
						a.t.Errorf("%s took %s: %s", api, value, out)
					}
				}
			}
		}
		if flagged < 2 { // the function, and its button's
			a.t.Errorf("of %v %d were tried", a.apis(), flagged)
		}
	}},
	{"S18 GHSA-qqr5-x4m8-g4gq an explorer that leaves its root", func(a *attacker) {
		for _, value := range []string{`[["/etc/passwd"]]`, `[["..","..","etc","passwd"]]`, `[["..","secret","canary.txt"]]`, `[["link","canary.txt"]]`} {
			if out := a.event("explorer", value); strings.Contains(out, `"success":true`) && !strings.Contains(value, "link") {
				a.t.Errorf("%s was taken: %s", value, out)
			}
			if !strings.Contains(value, "link") {
				a.posted("/component_server", fmt.Sprintf(`{"component_id":%d,"data":%s,"fn_name":"ls","session_hash":"a"}`, a.component("fileexplorer"), value[1:len(value)-1])).is(403)
			}
		}
		a.posted("/component_server", fmt.Sprintf(`{"component_id":%d,"data":[],"fn_name":"ls","session_hash":"a"}`, a.component("fileexplorer"))).is(200).has("a.txt")
		if out := a.event("explorer", `[["a.txt"]]`); !strings.Contains(out, "allowed/a.txt") {
			a.t.Errorf("a file below the root: %s", out)
		}
	}},
	{"S19 CVE-2024-1183 CVE-2024-4940 CVE-2024-8021 sent elsewhere", func(a *attacker) {
		for _, to := range []string{"http://evil.test", "http%3A%2F%2Fevil.test", "//evil.test", "/%5Cevil.test", "https:/%5Cevil.test", "https://evil.test/x", "HTTP://evil.test", "%68ttp://evil.test"} {
			for _, start := range []string{"/file=", "/file/", "/proxy="} {
				a.everyway("GET", start+to).not(200, "").not(301, "").not(302, "").not(307, "").not(308, "")
			}
		}
	}},
	{"S20 gradio#13593 a file fetched from inside", func(a *attacker) {
		for _, host := range a.inside() {
			for _, start := range []string{"/file=", "/proxy="} {
				a.everyway("GET", start+"http://"+host+"/canary").not(200, "").not(302, "")
			}
		}
		for _, other := range []string{"file:///etc/passwd", "gopher://127.0.0.1:1/", "ftp://127.0.0.1/x"} {
			a.api("GET", "/file="+other).is(403)
		}
	}},
	{"S21 CVE-2024-2206 an address in a header", func(a *attacker) {
		a.raw("GET /config HTTP/1.1\r\nHost: " + a.host + "\r\nX-Direct-Url: " + a.listener + "\r\nConnection: close\r\n\r\n").is(200)
		a.api("GET", "/proxy="+a.listener+"/").is(403)
	}},
	{"S22 CVE-2026-28416 proxied addresses of others", func(a *attacker) {
		for _, to := range []string{"http://169.254.169.254/", "https://x.hf.space.evil.com/", "https://evil.com/.hf.space", "https://evil.com#.hf.space", "https://a@evil.com%5C.hf.space/", "http://x.hf.space/", a.listener + "/.hf.space"} {
			a.api("GET", "/proxy="+to).is(403)
		}
	}},
	{"S24 CVE-2024-4325 CVE-2024-47167 CVE-2024-48052 inputs fetched from inside", func(a *attacker) {
		for _, host := range a.inside() {
			for _, api := range []string{"video", "file", "image"} {
				address := "http://" + host + "/a.mp4"
				a.event(api, fmt.Sprintf(`{"path":%q,"meta":{"_type":"gradio.FileData"}}`, address))
				a.event(api, fmt.Sprintf(`{"path":%q}`, address))
				a.event(api, fmt.Sprintf(`{"url":%q,"meta":{"_type":"gradio.FileData"}}`, address))
			}
		}
		a.event("text_to_video", fmt.Sprintf("%q", a.listener+"/a.mp4"))
		a.event("text_to_file", fmt.Sprintf("%q", a.listener+"/a.mp4"))
	}},
	{"S34 CVE-2024-47872 files that are pages", func(a *attacker) {
		for _, name := range []string{"a.html", "a.svg", "a.js", "a.xhtml", "a.xml", "a.pdf", "a.htm", "a", "a.svgz", "a.HTML"} {
			a.harmless(a.api("GET", "/file="+escaped(a.upload(name, "<script>1</script>"))), true)
		}
		for _, name := range []string{"a.png", "a.txt", "a.json", "a.mp4"} {
			a.harmless(a.api("GET", "/file="+escaped(a.upload(name, "<script>1</script>"))), false)
		}
		up := a.uploadRaw(`a.html%0d%0aX:1`, "x")
		a.harmless(a.api("GET", "/file="+escaped(up)), true)
	}},
	{"S35 gradio#13750 pages that the app made", func(a *attacker) {
		out := a.event("produce", `"made.html"`)
		paths := filePaths(out)
		if len(paths) == 0 {
			a.t.Fatalf("nothing was made: %s", out)
		}
		for _, path := range paths {
			a.harmless(a.api("GET", "/file="+escaped(path)), true)
		}
		for _, path := range []string{"/stream/a/b/1/playlist.m3u8", "/proxy=https://x.hf.space/a"} {
			if got := a.api("GET", path); got.header.Get("X-Content-Type-Options") != "nosniff" && got.status != 403 {
				a.t.Errorf("%s: %d without nosniff", path, got.status)
			}
		}
	}},
	{"S37 CVE-2025-0187 a name without end", func(a *attacker) {
		got := a.form("/upload", `form-data; name="files"; filename="`+strings.Repeat("a", 10<<20)+`"`, "x")
		if got.status != 400 && got.status != 413 {
			a.t.Errorf("a name of 10 MB: %d %.100s", got.status, got.body)
		}
	}},
	{"S38 names that lead elsewhere", func(a *attacker) {
		for _, name := range []string{
			"../../x", "/etc/cron.d/x", ".", "..", "CON", "a/b\\\\c", "..\\\\..\\\\x", strings.Repeat("n", 3900), "a\u202etxt.exe", "x\x00y", ".env", "a.\x00", "....//x", "%2e%2e%2fx",
		} {
			got := a.form("/upload", `form-data; name="files"; filename="`+name+`"`, "x")
			if got.status >= 500 {
				a.t.Errorf("%q: %d %s", name, got.status, got.body)
			}
			var paths []string
			if got.status == 200 && (json.Unmarshal([]byte(got.body), &paths) != nil || len(paths) != 1 || !a.isUpload(paths[0])) {
				a.t.Errorf("%q lies at %s", name, got.body)
			}
		}
		many := func(parts int) answer {
			var body bytes.Buffer
			w := multipart.NewWriter(&body)
			for i := range parts {
				part, _ := w.CreateFormFile("files", "same.txt")
				fmt.Fprint(part, i%3)
			}
			w.Close()
			return a.sent("POST", a.prefix+"/upload", w.FormDataContentType(), body.String())
		}
		many(1000).is(200)
		many(5000).is(400).has("Too many files")
	}},
	{"S39 CVE-2024-10569 small bodies that become large", func(a *attacker) {
		a.raw("POST " + a.prefix + "/queue/join HTTP/1.1\r\nHost: " + a.host + "\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\nConnection: close\r\n\r\nabcd").is(415)
		a.raw("POST " + a.prefix + "/upload HTTP/1.1\r\nHost: " + a.host + "\r\nContent-Type: multipart/form-data; boundary=x\r\nContent-Encoding: br\r\nContent-Length: 4\r\nConnection: close\r\n\r\nabcd").is(415)
		a.event("table", fileData(a.upload("b.csv.gz", "no gzip"))[0])
		bomb := "\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\xfd\xe8\x00\x00\xfd\xe8\x08\x02\x00\x00\x00"
		a.event("image", fileData(a.upload("big.png", bomb))[0])
	}},
	{"S40 CVE-2024-10624 a text that is slow to read", func(a *attacker) {
		text, _ := json.Marshal("now" + strings.Repeat(" ", 20_000) + "x")
		a.event("moment", string(text))
	}},
	{"S42 CVE-2022-24770 a formula in what is flagged", func(a *attacker) {
		defer a.unflag()
		formulas := []string{`=cmd|'/c calc'!A0`, "+1+1", "-1+1", "@SUM(A1)", "\t=1"}
		for _, api := range a.apis() {
			for _, formula := range formulas {
				text, _ := json.Marshal(formula)
				if isFlag(api) {
					a.event(api, "null", string(text), string(text))
				}
			}
		}
		files, _ := filepath.Glob(a.space("flagged/*.csv"))
		if len(files) == 0 {
			a.t.Fatal("nothing was flagged")
		}
		for _, file := range files {
			text, err := os.Open(file)
			if err != nil {
				a.t.Fatal(err)
			}
			defer text.Close()
			rows, err := csv.NewReader(text).ReadAll()
			if err != nil || len(rows) <= len(formulas) {
				a.t.Errorf("%s: %q %v", file, rows, err)
			}
			for _, cell := range slices.Concat(rows...) {
				if strings.IndexAny(cell, "=+-@\t") == 0 {
					a.t.Errorf("%s: the cell %q", file, cell)
				}
			}
		}
	}},
	{"S46 streams that are left", func(a *attacker) {
		before, rounds := a.descriptors(), 1
		if a.thorough {
			rounds = 20
		}
		for i := range rounds * 300 {
			for _, path := range []string{fmt.Sprintf("%s/heartbeat/x%d", a.prefix, i), fmt.Sprintf("%s/queue/data?session_hash=x%d", a.prefix, i)} {
				conn := a.dial()
				fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", path, a.host)
				conn.Close()
			}
			if i%300 == 299 {
				eventually(a.t, fmt.Sprintf("the host has its %d descriptors again", before), patience, func() bool { return a.descriptors() <= before+5 })
			}
		}
	}},
	{"S48 routes that write code", func(a *attacker) {
		for _, prefix := range prefixes {
			for _, path := range []string{"/dev/reload", "/vibe-edit", "/vibe-code", "/undo-vibe-edit", "/vibe-starter-queries", "/vibe-edit/", "/vibe-code/"} {
				got := a.sent("POST", prefix+path, "application/json", `{"code":"x","prompt":"x","hash":"../x"}`)
				if got.status != 404 && got.status != 405 {
					a.t.Errorf("POST %s%s: %d %.100s", prefix, path, got.status, got.body)
				}
			}
			a.sent("GET", prefix+"/vibe-code", "", "").is(404)
			a.sent("GET", prefix+"/dev/reload", "", "").is(404)
		}
	}},
}

// prefixes are those under which Gradio's routes are, or have been.
var prefixes = []string{"", "/gradio_api"}

// attacker is a Space of ours with canaries planted around it, and addresses that nobody may ask.
type attacker struct {
	t        *testing.T
	p        *product
	dir      string
	host     string
	listener string
	port     int
	hits     *atomic.Int64
	fns      map[string]int
	config   string
	before   []string
	prefix   string // of this Gradio's API
	thorough bool   // make attacks
	memory   int    // of the host, before the row
}

// canary stands in every file that no visitor may have.
const canary = "CANARY-7f3a91"

func newAttacker(t *testing.T, line string) *attacker {
	t.Helper()
	base, err := os.MkdirTemp(cacheDir(t), "attacks") // not below /tmp, from which Gradio lets an app hand out anything
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(base) })
	a := &attacker{t: t, dir: filepath.Join(base, "attacks"), hits: &atomic.Int64{}}
	if err := os.CopyFS(a.dir, os.DirFS(filepath.Join("testdata", "spaces", "attacks"))); err != nil {
		t.Fatal(err)
	}
	state := filepath.Join(base, "state")
	for _, path := range []string{
		a.dir + "/.env", a.dir + "/secret/canary.txt", a.dir + "/allowed2/canary.txt", a.dir + "/allowed/blocked/canary.txt", state + "/canary.txt",
		state + "/spaces/attacks/home/canary.txt", state + "/spaces/other/home/gradio/canary.txt", base + "/other/canary.txt",
	} {
		plant(t, path, canary)
	}
	plant(t, filepath.Join(state, "canary.png"), pictureOf(t))
	plant(t, a.dir+"/allowed/a.txt", "allowed")
	plant(t, a.dir+"/static/s.svg", "<svg/>")
	for link, target := range map[string]string{"link": "secret", "tolink": "allowed/blocked"} {
		if err := errors.Join(os.Symlink(filepath.Join(a.dir, target), filepath.Join(a.dir, "allowed", link))); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Symlink(filepath.Join(a.dir, "secret", "canary.txt"), filepath.Join(a.dir, "allowed", "link.txt")), syscall.Mkfifo(filepath.Join(a.dir, "allowed", "fifo"), 0o644)); err != nil {
		t.Fatal(err)
	}
	if line != "v4" {
		a.prefix = "/gradio_api"
	}
	a.listen()
	temporary := filepath.Join(base, "temporary") // of the Space's own, should the cache lie below /tmp
	if err := os.Mkdir(temporary, 0o700); err != nil {
		t.Fatal(err)
	}
	a.p = startProduct(t, state, a.dir, "--python", environmentOf(t, line), "--variable", "TMPDIR="+temporary)
	t.Cleanup(a.p.stop)
	a.p.awaitReady()
	if err := syscall.Mkfifo(a.uploads("fifo"), 0o644); err != nil {
		t.Fatal(err)
	}
	a.host = strings.TrimPrefix(a.p.URL, "http://")
	a.readConfig()
	a.before = a.files()
	return a
}

func plant(t *testing.T, path, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}

// pictureOf is a canary that gr.Image can open.
func pictureOf(t *testing.T) string {
	t.Helper()
	var out bytes.Buffer
	if err := png.Encode(&out, image.NewGray(image.Rect(0, 0, 8, 8))); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// listen counts who asks for what is inside.
func (a *attacker) listen() {
	listener, err := net.Listen("tcp", ":0") // every address of this machine, of both kinds
	if err != nil {
		a.t.Fatal(err)
	}
	a.port = listener.Addr().(*net.TCPAddr).Port
	a.listener = fmt.Sprintf("http://127.0.0.1:%d", a.port)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.hits.Add(1)
		fmt.Fprint(w, canary)
	})}
	go func() { _ = server.Serve(listener) }()
	a.t.Cleanup(func() { server.Close() })
}

// inside are the names that the listener goes by.
func (a *attacker) inside() []string {
	var hosts []string
	for _, name := range []string{"127.0.0.1", "[::1]", "0.0.0.0", "2130706433", "0x7f.1", "0x7f000001", "127.1", "[::ffff:127.0.0.1]", "localhost", "localhost.", "x.localhost", "0177.0.0.1"} {
		hosts = append(hosts, fmt.Sprintf("%s:%d", name, a.port))
	}
	if name, err := os.Hostname(); err == nil { // which mostly means an address of the machine's own
		hosts = append(hosts, fmt.Sprintf("%s:%d", name, a.port))
	}
	addresses, _ := net.InterfaceAddrs() // none: there are the others
	for _, address := range addresses {
		if own, ok := address.(*net.IPNet); ok && own.IP.To4() != nil && (own.IP.IsPrivate() || own.IP.IsLinkLocalUnicast()) {
			hosts = append(hosts, fmt.Sprintf("%s:%d", own.IP, a.port))
		}
	}
	return append(hosts, "169.254.169.254")
}

// on is the row that asks now.
func (a *attacker) on(t *testing.T) { a.t, a.p.t, a.memory = t, t, a.residentMiB() }

// residentMiB is what the host takes of the machine's memory. It is the test binary, with its race detector.
func (a *attacker) residentMiB() int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", a.p.cmd.Process.Pid))
	fields := strings.Fields(string(text))
	if err != nil || len(fields) < 2 {
		a.t.Fatalf("the host's memory: %q %v", text, err)
	}
	pages, _ := strconv.Atoi(fields[1]) // of the kernel
	return pages * os.Getpagesize() >> 20
}

// moreMiB is what a row may take: a body of S37, many times over.
const moreMiB = 128

// unharmed: nobody was asked, nothing was written but uploads, no memory is lost, and the Space still answers.
func (a *attacker) unharmed() {
	a.t.Helper()
	if now := a.residentMiB(); now > a.memory+moreMiB {
		a.t.Errorf("the host takes %d MiB, before it were %d", now, a.memory)
	}
	if hits := a.hits.Swap(0); hits != 0 {
		a.t.Errorf("%d requests reached what is inside", hits)
	}
	if now := a.files(); !slices.Equal(now, a.before) {
		a.t.Errorf("files outside the upload folder:\ngot  %q\nwant %q", now, a.before)
	}
	a.api("GET", "/config").below(500)
	a.raw("GET /config HTTP/1.1\r\nHost: " + a.host + "\r\nConnection: close\r\n\r\n").is(200)
}

// files lists what lies in the Space's folder, its home and the state, but for what they are for.
func (a *attacker) files() (found []string) {
	for _, root := range []string{a.dir, a.p.State} {
		_ = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			if err != nil {
				return nil // gone meanwhile
			}
			relative := strings.TrimPrefix(path, root)
			for _, known := range []string{"/spaces/attacks/home/gradio", "/logs", "/run", "/spacehost.db", "/__pycache__", "/spaces/attacks/home/.cache", "/spaces/attacks/home/.config"} {
				if strings.HasPrefix(relative, known) {
					return nil
				}
			}
			found = append(found, path)
			return nil
		})
	}
	return found
}

func (a *attacker) space(path string) string { return a.dir + "/" + path }
func (a *attacker) uploads(path string) string {
	return a.p.State + "/spaces/attacks/home/gradio/" + path
}

// isUpload: a place that the host has chosen, one folder below that of uploads.
func (a *attacker) isUpload(path string) bool {
	folder, name, ok := strings.Cut(strings.TrimPrefix(path, a.uploads("")), "/")
	return ok && strings.HasPrefix(path, a.uploads("")) && !strings.ContainsAny(name, "/\x00") && folder != ".." && name != ".."
}

func (a *attacker) secrets() []string {
	return []string{a.p.State + "/canary.txt", a.space(".env"), a.p.State + "/spaces/other/home/gradio/canary.txt", filepath.Dir(a.dir) + "/other/canary.txt"}
}

// fileData are the shapes in which a path comes in.
func fileData(path string) []string {
	p, _ := json.Marshal(path)
	return []string{
		fmt.Sprintf(`{"path":%s,"meta":{"_type":"gradio.FileData"}}`, p),
		fmt.Sprintf(`{"path":%s,"url":"http://h/file=/help","orig_name":"x","size":1,"mime_type":"text/plain"}`, p),
		fmt.Sprintf(`{"path":%s}`, p),
		fmt.Sprintf(`[{"a":{"b":[{"meta":{"_type":"gradio.FileData"},"path":%s}]}}]`, p),
		fmt.Sprintf(`{"text":"x","files":[{"path":%s,"meta":{"_type":"gradio.FileData"}}]}`, p),
	}
}

// answer is what came back, in full.
type answer struct {
	a      *attacker
	what   string
	status int
	header http.Header
	body   string
}

func (g answer) is(status int) answer {
	g.a.t.Helper()
	if g.status != status {
		g.a.t.Errorf("%s: %d %.200s, want %d", g.what, g.status, g.body, status)
	}
	return g
}

func (g answer) below(status int) answer {
	g.a.t.Helper()
	if g.status >= status {
		g.a.t.Errorf("%s: %d %.200s", g.what, g.status, g.body)
	}
	return g
}

// not fails for an answer of that status which says so; the page of the app itself, which stands at many paths, is none.
func (g answer) not(status int, text string) answer {
	g.a.t.Helper()
	if g.status == status && strings.Contains(g.body, text) && !strings.Contains(g.body, "window.gradio_config") {
		g.a.t.Errorf("%s: %d %.200s", g.what, g.status, g.body)
	}
	return g
}

func (g answer) has(text string) answer {
	g.a.t.Helper()
	if !strings.Contains(g.body, text) {
		g.a.t.Errorf("%s: %.200s, want %q", g.what, g.body, text)
	}
	return g
}

// answers are those to one request, sent in several ways.
type answers []answer

func (all answers) not(status int, text string) answers {
	for _, g := range all {
		g.a.t.Helper()
		g.not(status, text)
	}
	return all
}

func (all answers) below(status int) answers {
	for _, g := range all {
		g.a.t.Helper()
		g.below(status)
	}
	return all
}

// everyway sends a path on both prefixes, as it is and in the writings that filters have overlooked.
func (a *attacker) everyway(method, path string) (all answers) {
	a.t.Helper()
	head, tail := path, ""
	if at := strings.IndexAny(path[1:], "=/"); at >= 0 {
		head, tail = path[:at+2], path[at+2:]
	}
	ways := []string{
		tail, strings.ReplaceAll(tail, "..", "%2e%2e"), strings.ReplaceAll(tail, "..", "%252e%252e"), strings.ReplaceAll(tail, "/", "%2f"),
		strings.ReplaceAll(tail, "/", "%5C"), strings.ReplaceAll(tail, "/", "//"), tail + "%00", tail + ".", tail + "%20", strings.ReplaceAll(tail, "/", "%c0%af"), "/" + tail,
		strings.ReplaceAll(tail, "/", "%252f"), strings.ReplaceAll(tail, "..", "%c0%ae%c0%ae"), strings.ReplaceAll(tail, "../", "..%5C"), tail + "/", tail + "%2e%20",
	}
	for _, way := range slices.Compact(ways) {
		for _, prefix := range prefixes {
			all = append(all, a.sent(method, prefix+head+way, "", ""))
		}
	}
	return all
}

func (a *attacker) api(method, path string) answer {
	a.t.Helper()
	return a.sent(method, a.prefix+path, "", "")
}

func (a *attacker) posted(path, body string) answer {
	a.t.Helper()
	for _, prefix := range prefixes {
		if prefix != a.prefix {
			a.sent("POST", prefix+path, "application/json", body)
		}
	}
	return a.sent("POST", a.prefix+path, "application/json", body)
}

func (a *attacker) sent(method, path, kind, body string) answer {
	a.t.Helper()
	request := method + " " + strings.ReplaceAll(path, " ", "%20") + " HTTP/1.1\r\nHost: " + a.host + "\r\nConnection: close\r\n"
	if kind != "" {
		request += "Content-Type: " + kind + "\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n"
	}
	return a.raw(request + "\r\n" + body)
}

func (a *attacker) dial() net.Conn {
	a.t.Helper()
	conn, err := net.Dial("tcp", a.host)
	if err != nil {
		a.t.Fatal(err)
	}
	return conn
}

// raw sends bytes, and holds the oracle against what comes back: an answer, not of a broken server, without a
// canary, that sends nobody elsewhere.
func (a *attacker) raw(request string) answer {
	a.t.Helper()
	return a.rawTo(request, "")
}

// rawTo may be sent to one other place.
func (a *attacker) rawTo(request, also string) answer {
	a.t.Helper()
	conn := a.dial()
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience / 2))   // a hang, on a machine however loaded
	go func() { _, _ = io.WriteString(conn, request) }() // it may be refused half-way
	line, _, _ := strings.Cut(request, " HTTP/1.1")
	method, _, _ := strings.Cut(request, " ")
	response, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		a.t.Fatalf("%.200s: %v", line, err)
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(response.Body, 16<<20)) // a body may break off
	g := answer{a, fmt.Sprintf("%.300s", line), response.StatusCode, response.Header, string(body)}
	a.check(g.what, fmt.Sprint(g.header)+g.body)
	if g.status >= 500 {
		a.t.Errorf("%s: %d %.200s", g.what, g.status, g.body)
	}
	if to, err := url.Parse(g.header.Get("Location")); err != nil || to.Host != "" && to.Host != a.host && "http://"+to.Host != also {
		a.t.Errorf("%s: sent to %s", g.what, g.header.Get("Location"))
	}
	return g
}

// check is the oracle for anything that a visitor gets to read.
func (a *attacker) check(what, text string) {
	a.t.Helper()
	if strings.Contains(text, canary) {
		a.t.Errorf("%s: the canary is in %.300s", what, text)
	}
}

// event sends values through the queue and returns its stream; whatever that names is fetched, too.
func (a *attacker) event(api string, values ...string) string {
	a.t.Helper()
	fn, ok := a.fns[api]
	if !ok {
		a.t.Fatalf("the app has no %s: %v", api, a.apis())
	}
	session := fmt.Sprintf("s%d", time.Now().UnixNano())
	got := a.sent("POST", a.prefix+"/queue/join", "application/json",
		fmt.Sprintf(`{"data":[%s],"fn_index":%d,"trigger_id":2,"session_hash":%q}`, strings.Join(values, ","), fn, session))
	if got.status != 200 {
		got.below(500)
		return got.body
	}
	stream := a.api("GET", "/queue/data?session_hash="+session)
	for _, path := range filePaths(stream.body) {
		a.api("GET", "/file="+escaped(path))
	}
	return stream.body
}

var pathField = regexp.MustCompile(`"path":("(?:[^"\\]|\\.)*")`)

func filePaths(text string) (paths []string) {
	for _, m := range pathField.FindAllStringSubmatch(text, -1) {
		var path string
		if json.Unmarshal([]byte(m[1]), &path) == nil {
			paths = append(paths, path)
		}
	}
	return paths
}

func escaped(path string) string { return (&url.URL{Path: path}).EscapedPath() }

// upload sends a file as clients do, and returns the path that it got.
func (a *attacker) upload(name, content string) string {
	a.t.Helper()
	return a.uploadRaw(strings.NewReplacer("\\", "\\\\", `"`, "\\\"").Replace(name), content)
}

func (a *attacker) uploadRaw(name, content string) string {
	a.t.Helper()
	got := a.form("/upload", `form-data; name="files"; filename="`+name+`"`, content).is(200)
	var paths []string
	if err := json.Unmarshal([]byte(got.body), &paths); err != nil || len(paths) != 1 {
		a.t.Fatalf("upload of %q: %s", name, got.body)
	}
	return paths[0]
}

func (a *attacker) form(path, disposition, content string) answer {
	a.t.Helper()
	body := "--B\r\nContent-Disposition: " + disposition + "\r\n\r\n" + content + "\r\n--B--\r\n"
	return a.sent("POST", a.prefix+path, "multipart/form-data; boundary=B", body)
}

// rpc asks the Space's MCP server, and returns what it says.
func (a *attacker) rpc(method, params string) string {
	a.t.Helper()
	body := fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":%q,"params":%s}`, method, params)
	return a.raw(fmt.Sprintf("POST %s/mcp/ HTTP/1.1\r\nHost: %s\r\nConnection: close\r\nContent-Type: application/json\r\n"+
		"Accept: application/json, text/event-stream\r\nContent-Length: %d\r\n\r\n%s", a.prefix, a.host, len(body), body)).is(200).body
}

// tools are the app's, with the name of their first argument.
func (a *attacker) tools() map[string]string {
	a.t.Helper()
	listed, tools := a.rpc("tools/list", "{}"), map[string]string{}
	_, data, _ := strings.Cut(listed, "data: ")
	var answer struct {
		Result struct {
			Tools []struct {
				Name        string `json:"name"`
				InputSchema struct {
					Properties map[string]any `json:"properties"`
				} `json:"inputSchema"`
			} `json:"tools"`
		} `json:"result"`
	}
	if err := json.NewDecoder(strings.NewReader(data)).Decode(&answer); err != nil {
		a.t.Fatalf("tools: %v in %.300s", err, listed)
	}
	for _, tool := range answer.Result.Tools {
		for argument := range tool.InputSchema.Properties {
			tools[tool.Name] = argument
		}
	}
	return tools
}

// harmless: bytes that are no page of the Space, whatever they say.
func (a *attacker) harmless(g answer, attachment bool) {
	a.t.Helper()
	g.is(200)
	shown := g.header.Get("Content-Disposition")
	if attachment && (!strings.HasPrefix(shown, "attachment") || g.header.Get("Content-Type") != "application/octet-stream") {
		a.t.Errorf("%s: %s as %s", g.what, g.header.Get("Content-Type"), shown)
	}
	if g.header.Get("X-Content-Type-Options") != "nosniff" || !strings.Contains(g.header.Get("Content-Security-Policy"), "sandbox") || g.header.Get("X") != "" {
		a.t.Errorf("%s: %v", g.what, g.header)
	}
}

func (a *attacker) readConfig() {
	a.t.Helper()
	got := a.raw("GET /config HTTP/1.1\r\nHost: " + a.host + "\r\nConnection: close\r\n\r\n").is(200)
	var config struct {
		Dependencies []struct {
			ID      int `json:"id"`
			APIName any `json:"api_name"`
		} `json:"dependencies"`
	}
	if err := json.Unmarshal([]byte(got.body), &config); err != nil {
		a.t.Fatal(err)
	}
	a.config, a.fns = got.body, map[string]int{}
	for _, d := range config.Dependencies {
		name, ok := d.APIName.(string)
		if !ok {
			name = fmt.Sprint(d.ID)
		}
		a.fns[name] = d.ID
	}
}

// unflag leaves the folder of what was flagged as it was: Gradio 4 makes it at its start.
func (a *attacker) unflag() {
	files, _ := filepath.Glob(a.space("flagged/*"))
	for _, file := range files {
		os.Remove(file)
	}
	if !slices.Contains(a.before, a.space("flagged")) {
		os.Remove(a.space("flagged"))
	}
}

// isFlag: the Interface's own function, whose button says Flag.
func isFlag(api string) bool { return strings.Contains(strings.ToLower(api), "flag") }

func (a *attacker) apis() []string { return slices.Sorted(maps.Keys(a.fns)) }

// component is the id of the first of a type.
func (a *attacker) component(kind string) int {
	var config struct {
		Components []struct {
			ID   int    `json:"id"`
			Type string `json:"type"`
		} `json:"components"`
	}
	_ = json.Unmarshal([]byte(a.config), &config) // readConfig has
	for _, c := range config.Components {
		if c.Type == kind {
			return c.ID
		}
	}
	a.t.Fatalf("the app has no %s", kind)
	return 0
}

func (a *attacker) descriptors() int {
	entries, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", a.p.cmd.Process.Pid))
	return len(entries)
}
