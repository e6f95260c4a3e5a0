package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/png"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
)

// prefixes are the URL prefixes of Gradio's routes: none in Gradio 4, /gradio_api later.
var prefixes = []string{"", "/gradio_api"}

// attacker is a host under attack: its Space is surrounded by canary files, and a listener counts requests to internal addresses.
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
	prefix   string // of this Gradio line's API
	thorough bool   // set by `make attacks`
	memory   int    // of the host before the row, in MiB
}

// canary is the content of every file that no visitor may read.
const canary = "CANARY-7f3a91"

func newAttacker(t *testing.T, line string) *attacker {
	t.Helper()
	base, err := os.MkdirTemp(cacheDir(t), "attacks") // not below /tmp: Gradio allows an app to return any file from there
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
	temporary := filepath.Join(base, "temporary") // a TMPDIR for this Space, in case the cache is below /tmp
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

// pictureOf returns a PNG that gr.Image can open.
func pictureOf(t *testing.T) string {
	t.Helper()
	var out bytes.Buffer
	if err := png.Encode(&out, image.NewGray(image.Rect(0, 0, 8, 8))); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// listen starts a server that counts the requests to internal addresses.
func (a *attacker) listen() {
	listener, err := net.Listen("tcp", ":0") // all addresses of this machine, IPv4 and IPv6
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

// internalHosts returns the host names and address notations that reach the listener, and the cloud metadata address.
func (a *attacker) internalHosts() []string {
	var hosts []string
	for _, name := range []string{"127.0.0.1", "[::1]", "0.0.0.0", "2130706433", "0x7f.1", "0x7f000001", "127.1", "[::ffff:127.0.0.1]", "localhost", "localhost.", "x.localhost", "0177.0.0.1"} {
		hosts = append(hosts, fmt.Sprintf("%s:%d", name, a.port))
	}
	if name, err := os.Hostname(); err == nil { // usually resolves to an address of this machine
		hosts = append(hosts, fmt.Sprintf("%s:%d", name, a.port))
	}
	addresses, _ := net.InterfaceAddrs() // on an error the other names remain
	for _, address := range addresses {
		if own, ok := address.(*net.IPNet); ok && own.IP.To4() != nil && (own.IP.IsPrivate() || own.IP.IsLinkLocalUnicast()) {
			hosts = append(hosts, fmt.Sprintf("%s:%d", own.IP, a.port))
		}
	}
	return append(hosts, "169.254.169.254")
}

// on switches to the test of the current row.
func (a *attacker) on(t *testing.T) { a.t, a.p.t, a.memory = t, t, a.residentMiB() }

// residentMiB returns the host's resident memory. The host is the test binary, including the race detector when enabled.
func (a *attacker) residentMiB() int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", a.p.cmd.Process.Pid))
	fields := strings.Fields(string(text))
	if err != nil || len(fields) < 2 {
		a.t.Fatalf("read the host's resident memory: %q %v", text, err)
	}
	pages, _ := strconv.Atoi(fields[1]) // digits written by the kernel
	return pages * os.Getpagesize() >> 20
}

// allowedMiB is the memory growth that a row may cause: many times the request body of S37.
const allowedMiB = 128

// wantUnharmed checks that no request reached the listener, that only upload files were written, that the host's memory has not
// grown, and that the Space still answers.
func (a *attacker) wantUnharmed() {
	a.t.Helper()
	if now := a.residentMiB(); now > a.memory+allowedMiB {
		a.t.Errorf("the host's memory grew from %[2]d to %[1]d MiB, want at most %[3]d MiB more", now, a.memory, allowedMiB)
	}
	if hits := a.hits.Swap(0); hits != 0 {
		a.t.Errorf("%d requests reached internal addresses, want 0", hits)
	}
	if now := a.files(); !slices.Equal(now, a.before) {
		a.t.Errorf("files outside the upload folder:\ngot  %q\nwant %q", now, a.before)
	}
	a.api("GET", "/config").below(500)
	a.raw("GET /config HTTP/1.1\r\nHost: " + a.host + "\r\nConnection: close\r\n\r\n").is(200)
}

// files lists the files in the Space's folder and in the state folder, except those that a host and its Space write themselves.
func (a *attacker) files() (found []string) {
	for _, root := range []string{a.dir, a.p.State} {
		_ = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			if err != nil {
				return nil // removed in the meantime
			}
			relative := strings.TrimPrefix(path, root)
			for _, known := range []string{"/spaces/attacks/home/gradio", "/spaces/attacks/uploaded", "/logs", "/run", "/spacehost.db", "/__pycache__", "/spaces/attacks/home/.cache", "/spaces/attacks/home/.config"} {
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

// isUpload reports whether path was chosen by the host: one folder below the upload folder.
func (a *attacker) isUpload(path string) bool {
	folder, name, ok := strings.Cut(strings.TrimPrefix(path, a.uploads("")), "/")
	return ok && strings.HasPrefix(path, a.uploads("")) && !strings.ContainsAny(name, "/\x00") && folder != ".." && name != ".."
}

func (a *attacker) secrets() []string {
	return []string{a.p.State + "/canary.txt", a.space(".env"), a.p.State + "/spaces/other/home/gradio/canary.txt", filepath.Dir(a.dir) + "/other/canary.txt"}
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

// restoreFlagged removes the flagged files, and the folder unless it existed before: Gradio 4 creates it at its start.
func (a *attacker) restoreFlagged() {
	files, _ := filepath.Glob(a.space("flagged/*"))
	for _, file := range files {
		os.Remove(file)
	}
	if !slices.Contains(a.before, a.space("flagged")) {
		os.Remove(a.space("flagged"))
	}
}

// isFlag reports whether api is the function of the Interface's Flag button.
func isFlag(api string) bool { return strings.Contains(strings.ToLower(api), "flag") }

func (a *attacker) apis() []string { return slices.Sorted(maps.Keys(a.fns)) }

// component returns the id of the first component of a type.
func (a *attacker) component(kind string) int {
	var config struct {
		Components []struct {
			ID   int    `json:"id"`
			Type string `json:"type"`
		} `json:"components"`
	}
	_ = json.Unmarshal([]byte(a.config), &config) // readConfig has checked it
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
