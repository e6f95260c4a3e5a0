package main

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"mime/multipart"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestAttacks replays Gradio's security advisories as black-box cases. Each row sends the published attack and checks that
// it fails on the host. One oracle applies to every response byte (attacker.check) and after each row (attacker.wantUnharmed).
func TestAttacks(t *testing.T) {
	for _, line := range attackedLines() {
		t.Run(line, func(t *testing.T) {
			a := newAttacker(t, line)
			a.thorough = allAttacks()
			for _, row := range attacks {
				t.Run(row.name, func(t *testing.T) {
					a.on(t)
					row.run(a)
					a.wantUnharmed()
				})
			}
		})
	}
}

// allAttacks reports whether `make attacks` runs the test: it covers every Gradio line and repeats the slow rows.
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
	{"S01 CVE-2021-43831 files by path", func(a *attacker) {
		for _, path := range []string{"/file/../../../../etc/passwd", "/file/.env", "/file=app.py", "/file=.env", "/file/app.py", "/file=" + a.space(".env")} {
			a.sendVariants("GET", path).below(500).not(200, "root:")
		}
	}},
	{"S02 CVE-2023-34239 any file, any address", func(a *attacker) {
		a.api("GET", "/file=/etc/passwd").is(403)
		a.sendVariants("GET", "/proxy="+a.listener+"/").not(200, "canary")
		a.api("GET", "/proxy="+a.listener+"/").is(403)
	}},
	{"S03 CVE-2023-51449 path traversal out of the upload folder", func(a *attacker) {
		up := a.upload("okm", "text")
		for _, climb := range []string{"/../../../../../../../../../../etc/passwd", "/../../../../canary.txt", "/..%2f..%2f..%2f..%2fcanary.txt"} {
			a.sendVariants("GET", "/file="+filepath.Dir(up)+climb).not(200, "")
		}
	}},
	{"S04 CVE-2024-47164 neighbours, links, devices", func(a *attacker) {
		for _, path := range []string{
			a.space("allowed/../secret/canary.txt"), a.space("allowed2/canary.txt"), a.space("allowed/link/canary.txt"), a.space("allowed/link.txt"),
			"allowed/link/canary.txt", "allowed/../secret/canary.txt", // from the app's own folder
			"/proc/self/root/etc/passwd", "/proc/self/environ", "/proc/self/cwd/.env", a.space("allowed/fifo"), "/dev/zero", "/dev/stdin", a.uploads("fifo"),
		} {
			a.sendVariants("GET", "/file="+path).not(200, "")
			a.api("GET", "/file="+path).is(403)
			a.api("HEAD", "/file="+path).is(403)
		}
		a.api("GET", "/file="+a.space("allowed/a.txt")).is(200)
	}},
	{"S05 CVE-2025-23042 blocked paths in other letter case", func(a *attacker) {
		for _, path := range []string{"allowed/blocked/canary.txt", "allowed/BLOCKED/canary.txt", "allowed/Blocked/Canary.txt", "allowed/./blocked//canary.txt", "allowed/tolink/canary.txt"} {
			a.api("GET", "/file="+a.space(path)).is(403)
		}
	}},
	{"S07 CVE-2026-28414 absolute paths of static files", func(a *attacker) {
		for _, start := range []string{"/static/", "/assets/", "/svelte/", "/favicon.ico/.."} {
			for _, path := range []string{"/etc/passwd", "/windows/win.ini", a.space(".env"), "../../../../../../../../etc/passwd"} {
				a.sendVariants("GET", start+path).below(500).not(200, "root:")
			}
		}
	}},
	{"S08 CVE-2024-47166 path traversal out of a component's folder", func(a *attacker) {
		for _, path := range []string{"../__init__.py", "%2e%2e%2f__init__.py", "..%2f..%2f__init__.py"} {
			for _, id := range []string{"1", "textbox", "0af32a1f"} {
				a.sendVariants("GET", "/custom_component/"+id+"/client/component/"+path).not(200, "import")
			}
		}
	}},
	{"S09 CVE-2024-1561 CVE-2024-34511 methods of a component", func(a *attacker) {
		for _, name := range []string{"move_resource_to_block_cache", "__init__", "postprocess", "__class__", "preprocess"} {
			for id := range 12 {
				a.post("/component_server", fmt.Sprintf(`{"component_id":"%d","data":"/etc/passwd","fn_name":%q,"session_hash":"a"}`, id, name)).below(500).not(200, "")
			}
		}
	}},
	{"S10 server-side request forgery through a component", func(a *attacker) {
		for id := range 60 {
			a.post("/component_server", fmt.Sprintf(`{"component_id":"%d","data":"%s/","fn_name":"download_temp_copy_if_needed","session_hash":"a"}`, id, a.listener)).not(200, "")
		}
	}},
	{"S11 CVE-2024-1728 a file path as a queue input", func(a *attacker) {
		for _, secret := range append(a.secrets(), a.p.State+"/canary.png") {
			for _, api := range []string{"file", "binary", "image", "video", "gallery", "download", "chat", "multimodal", "json"} {
				for _, value := range fileData(secret) {
					if out := a.event(api, value); strings.Contains(out, "<class") || strings.Contains(out, "canary.png") && strings.Contains(out, `"success":true`) && api == "image" {
						a.t.Errorf("%s accepted %s: %s", api, value, out)
					}
				}
			}
		}
		if out := a.event("json", `{"path":"/users/7","meta":{"page":1}}`); a.prefix != "" /* Gradio 4 refuses it */ && !strings.Contains(out, `"/users/7"`) { // a path in the app's own JSON is no file
			a.t.Errorf("a path in the app's own JSON is refused: %s", out)
		}
	}},
	{"S12 CVE-2024-0964 a file path as an input past the queue", func(a *attacker) {
		for _, api := range []string{"file", "binary", "image", "json"} {
			for _, value := range fileData(a.secrets()[0]) {
				for _, path := range []string{"/run/" + api, "/api/" + api, "/call/" + api, "/run/predict", "/api/predict"} {
					a.post(path, fmt.Sprintf(`{"data":[%s],"session_hash":"s12"}`, value)).below(500)
				}
				a.post("/call/v2/"+api, fmt.Sprintf(`{"value":%s}`, value)).below(500)
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
		for name, argument := range tools { // each tool is one of the functions above
			for _, value := range append(fileData(secret)[:3], fmt.Sprintf("%q", secret), fmt.Sprintf("%q", a.listener+"/a.png")) {
				a.rpc("tools/call", fmt.Sprintf(`{"name":%q,"arguments":{%q:%s}}`, name, argument, value))
			}
		}
	}},
	{"S13 CVE-2024-51751 a file as bytes", func(a *attacker) {
		marked, plain := `{"path":"/etc/passwd","meta":{"_type":"gradio.FileData"}}`, `{"path":"/etc/passwd"}`
		a.post("/run/binary", `{"data":[`+marked+`]}`).is(403)
		for _, value := range []string{marked, plain, `{"path":"/etc/passwd","meta":{"_type":"gradio.\u0046ileData"}}`} {
			a.event("binary", value)
		}
		utf16 := []byte{}
		for _, b := range []byte(`{"data":[` + marked + `]}`) {
			utf16 = append(utf16, b, 0)
		}
		a.post("/run/binary", string(utf16)).is(400)
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
	{"S15 CVE-2024-47868 a path that the app returns", func(a *attacker) {
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
						a.t.Errorf("%s accepted %s: %s", api, value, out)
					}
				}
			}
		}
		if flagged < 2 { // the function and the one of its button
			a.t.Errorf("found %[2]d flag functions in %[1]v, want at least 2", a.apis(), flagged)
		}
	}},
	{"S18 GHSA-qqr5-x4m8-g4gq a file explorer that leaves its root", func(a *attacker) {
		for _, value := range []string{`[["/etc/passwd"]]`, `[["..","..","etc","passwd"]]`, `[["..","secret","canary.txt"]]`, `[["link","canary.txt"]]`} {
			if out := a.event("explorer", value); strings.Contains(out, `"success":true`) && !strings.Contains(value, "link") {
				a.t.Errorf("path %s was accepted: %s", value, out)
			}
			if !strings.Contains(value, "link") {
				a.post("/component_server", fmt.Sprintf(`{"component_id":%d,"data":%s,"fn_name":"ls","session_hash":"a"}`, a.component("fileexplorer"), value[1:len(value)-1])).is(403)
			}
		}
		a.post("/component_server", fmt.Sprintf(`{"component_id":%d,"data":[],"fn_name":"ls","session_hash":"a"}`, a.component("fileexplorer"))).is(200).has("a.txt")
		if out := a.event("explorer", `[["a.txt"]]`); !strings.Contains(out, "allowed/a.txt") {
			a.t.Errorf("a file below the root: got %s, want allowed/a.txt", out)
		}
	}},
	{"S19 CVE-2024-1183 CVE-2024-4940 CVE-2024-8021 open redirects", func(a *attacker) {
		for _, to := range []string{"http://evil.test", "http%3A%2F%2Fevil.test", "//evil.test", "/%5Cevil.test", "https:/%5Cevil.test", "https://evil.test/x", "HTTP://evil.test", "%68ttp://evil.test"} {
			for _, start := range []string{"/file=", "/file/", "/proxy="} {
				a.sendVariants("GET", start+to).not(200, "").not(301, "").not(302, "").not(307, "").not(308, "")
			}
		}
	}},
	{"S20 gradio#13593 a file fetched from an internal address", func(a *attacker) {
		for _, host := range a.internalHosts() {
			for _, start := range []string{"/file=", "/proxy="} {
				a.sendVariants("GET", start+"http://"+host+"/canary").not(200, "").not(302, "")
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
	{"S22 CVE-2026-28416 proxied foreign addresses", func(a *attacker) {
		for _, to := range []string{"http://169.254.169.254/", "https://x.hf.space.evil.com/", "https://evil.com/.hf.space", "https://evil.com#.hf.space", "https://a@evil.com%5C.hf.space/", "http://x.hf.space/", a.listener + "/.hf.space"} {
			a.api("GET", "/proxy="+to).is(403)
		}
	}},
	{"S24 CVE-2024-4325 CVE-2024-47167 CVE-2024-48052 inputs fetched from an internal address", func(a *attacker) {
		for _, host := range a.internalHosts() {
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
	{"S34 CVE-2024-47872 uploaded files that are pages", func(a *attacker) {
		for _, name := range []string{"a.html", "a.svg", "a.js", "a.xhtml", "a.xml", "a.pdf", "a.htm", "a", "a.svgz", "a.HTML"} {
			a.wantInert(a.api("GET", "/file="+escaped(a.upload(name, "<script>1</script>"))), true)
		}
		for _, name := range []string{"a.png", "a.txt", "a.json", "a.mp4"} {
			a.wantInert(a.api("GET", "/file="+escaped(a.upload(name, "<script>1</script>"))), false)
		}
		up := a.uploadRaw(`a.html%0d%0aX:1`, "x")
		a.wantInert(a.api("GET", "/file="+escaped(up)), true)
	}},
	{"S35 gradio#13750 pages that the app generates", func(a *attacker) {
		out := a.event("produce", `"made.html"`)
		paths := filePaths(out)
		if len(paths) == 0 {
			a.t.Fatalf("the app returned no file: %s", out)
		}
		for _, path := range paths {
			a.wantInert(a.api("GET", "/file="+escaped(path)), true)
		}
		for _, path := range []string{"/stream/a/b/1/playlist.m3u8", "/proxy=https://x.hf.space/a"} {
			if got := a.api("GET", path); got.header.Get("X-Content-Type-Options") != "nosniff" && got.status != 403 {
				a.t.Errorf("%s: %d without nosniff", path, got.status)
			}
		}
	}},
	{"S37 CVE-2025-0187 a file name of 10 MB", func(a *attacker) {
		got := a.form("/upload", `form-data; name="files"; filename="`+strings.Repeat("a", 10<<20)+`"`, "x")
		if got.status != 400 && got.status != 413 {
			a.t.Errorf("a file name of 10 MB: got %d %.100s, want 400 or 413", got.status, got.body)
		}
	}},
	{"S38 file names with path traversal", func(a *attacker) {
		for _, name := range []string{
			"../../x", "/etc/cron.d/x", ".", "..", "CON", "a/b\\\\c", "..\\\\..\\\\x", strings.Repeat("n", 3900), "a\u202etxt.exe", "x\x00y", ".env", "a.\x00", "....//x", "%2e%2e%2fx",
		} {
			got := a.form("/upload", `form-data; name="files"; filename="`+name+`"`, "x")
			if got.status >= 500 {
				a.t.Errorf("%q: %d %s", name, got.status, got.body)
			}
			var paths []string
			if got.status == 200 && (json.Unmarshal([]byte(got.body), &paths) != nil || len(paths) != 1 || !a.isUpload(paths[0])) {
				a.t.Errorf("%q was stored outside the upload folder: %s", name, got.body)
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
	{"S39 CVE-2024-10569 decompression bombs", func(a *attacker) {
		a.raw("POST " + a.prefix + "/queue/join HTTP/1.1\r\nHost: " + a.host + "\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\nConnection: close\r\n\r\nabcd").is(415)
		a.raw("POST " + a.prefix + "/upload HTTP/1.1\r\nHost: " + a.host + "\r\nContent-Type: multipart/form-data; boundary=x\r\nContent-Encoding: br\r\nContent-Length: 4\r\nConnection: close\r\n\r\nabcd").is(415)
		a.event("table", fileData(a.upload("b.csv.gz", "no gzip"))[0])
		bomb := "\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\xfd\xe8\x00\x00\xfd\xe8\x08\x02\x00\x00\x00"
		a.event("image", fileData(a.upload("big.png", bomb))[0])
	}},
	{"S40 CVE-2024-10624 a text with slow regular expression matching", func(a *attacker) {
		text, _ := json.Marshal("now" + strings.Repeat(" ", 20_000) + "x")
		a.event("moment", string(text))
	}},
	{"S42 CVE-2022-24770 a formula in flagged data", func(a *attacker) {
		defer a.restoreFlagged()
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
			a.t.Fatal("no flagged CSV file was written")
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
					a.t.Errorf("%s: cell %q starts with a formula character", file, cell)
				}
			}
		}
	}},
	{"S46 abandoned streams", func(a *attacker) {
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
				eventually(a.t, fmt.Sprintf("the number of open descriptors returns to %d", before), patience, func() bool { return a.descriptors() <= before+5 })
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
