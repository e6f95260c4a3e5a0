// Package space knows what a Space is on disk, and its stage.
package space

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// What the Hub takes when the front matter is silent (spaces-config-reference.md); sdk and app_file are
// what it writes into every new Gradio Space.
const (
	defaultSDK            = "gradio"
	defaultAppFile        = "app.py"
	defaultStartupTimeout = 30 * time.Minute
)

// maxReadme bounds what Open reads of a README.md, which may belong to a stranger. The Hub's own cards are
// a few kilobytes; front matter further down than this is not found.
const maxReadme = 1 << 20

// Space is an app folder that the host serves, as its README.md describes it.
// Fields named for a key of the front matter hold its text as written, and are empty where it is silent;
// the exceptions say so.
type Space struct {
	Dir  string // absolute
	Name string // the folder's name in [a-z0-9._-]: for URLs, file names and quota keys
	ID   string // "local/" + Name, where the Hub has "owner/name"

	Title             string // never empty: the folder's name where there is none
	Emoji             string
	ColorFrom         string
	ColorTo           string
	Thumbnail         string
	ShortDescription  string
	License           string
	Header            string // mini or default
	BasePath          string // first page to show
	FullWidth         bool   // true where nothing is said
	Pinned            bool
	DisableEmbedding  bool
	SuggestedHardware string
	SuggestedStorage  string
	Models            []string
	Datasets          []string
	Tags              []string
	CustomHeaders     map[string]string

	SDK            string        // always "gradio"
	SDKVersion     string        // empty: the newest
	PythonVersion  string        // empty: any that the host can use
	AppFile        string        // clean and relative to Dir; it exists, inside Dir
	StartupTimeout time.Duration // 30 minutes where nothing is said
	PreloadFromHub []string      // "repository [file,file [commit]]"

	HFOAuth                  bool
	HFOAuthScopes            []string
	HFOAuthExpirationMinutes int // 480 where nothing is said
	HFOAuthAuthorizedOrg     []string

	// Warnings are sentences for the author, in the order of their lines: what is unknown, ignored here, or
	// would be refused by the Hub.
	Warnings []string
}

// Open reads the Space in dir. A README.md that is missing or has no front matter is a warning, so that a
// bare app.py can be tried; what is written there must be right. Errors are *FolderError, *ConfigError
// and *AppFileError.
func Open(dir string) (*Space, error) {
	dir, err := folder(dir)
	if err != nil {
		return nil, err
	}
	readme, err := readReadme(dir)
	if err != nil {
		return nil, err
	}
	matter, err := parse(readme)
	if err != nil {
		return nil, err
	}
	s, err := matter.space(dir)
	if err != nil {
		return nil, err
	}
	if err := checkAppFile(s.Dir, s.AppFile, matter.line("app_file")); err != nil {
		return nil, err
	}
	return s, nil
}

// folder makes dir absolute, and says so if it is not a folder that can be read.
func folder(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", &FolderError{Dir: dir, Err: err}
	}
	info, err := os.Stat(abs)
	if err != nil {
		return "", &FolderError{Dir: abs, Err: err}
	}
	if !info.IsDir() {
		return "", &FolderError{Dir: abs, Err: errNotFolder}
	}
	return abs, nil
}

// readReadme returns nil when there is no README.md.
func readReadme(dir string) ([]byte, error) {
	path := filepath.Join(dir, "README.md")
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, &FolderError{Dir: dir, Err: err}
	}
	if !info.Mode().IsRegular() { // reading a pipe would wait for ever
		return nil, &ConfigError{Problem: "README.md is not a file", Next: "replace it by one"}
	}
	head, err := readHead(path)
	if err != nil {
		return nil, &FolderError{Dir: dir, Err: err}
	}
	return head, nil
}

// readHead never returns nil without an error: nil stands for a missing file.
func readHead(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxReadme))
}

// checkAppFile says whether appFile is a file inside dir once all links are followed: what stands there is
// run, and shown by the console.
func checkAppFile(dir, appFile string, line int) error {
	path := filepath.Join(dir, appFile)
	fail := &AppFileError{Dir: dir, AppFile: appFile, Line: line}
	if !filepath.IsLocal(appFile) {
		fail.Outside = true
		return fail
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return fail
	}
	if !inside(dir, real) {
		fail.Outside = true
		return fail
	}
	if info, err := os.Stat(real); err != nil || !info.Mode().IsRegular() {
		return fail
	}
	return nil
}

// inside reports whether real, which has no links left, lies in dir.
func inside(dir, real string) bool {
	root, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return false
	}
	rel, err := filepath.Rel(root, real)
	return err == nil && filepath.IsLocal(rel)
}

var notInNames = regexp.MustCompile(`[^a-z0-9._-]+`)

// NameOf turns a folder's name into one that is safe in URLs, file names and quota keys. A name of which
// nothing is left (a folder called "画像") becomes "space-" and a hash, so that two of them stay two.
func NameOf(dir string) string {
	base := filepath.Base(dir)
	name := notInNames.ReplaceAllString(strings.ToLower(base), "-")
	name = strings.Trim(name, ".-")
	if name == "" {
		sum := sha256.Sum256([]byte(base))
		return "space-" + hex.EncodeToString(sum[:4])
	}
	return name
}
