// Package space reads a Space from disk: its folder, its front matter, and its stage.
//
// # Terms
//
//   - Space: an app folder with a README.md and an app file.
//   - Front matter: the YAML between two lines of --- at the top of README.md. Its keys are those of the Hub.
//   - Stage: the state of a Space in the Hub's words, such as BUILDING or RUNNING.
//
// # Types
//
// The command line calls Open, which returns a Space with Warnings for its author, and StageOf, which maps an error of
// Open to a Stage. The Supervisor of package worker keeps the Stage of a Space. The host calls ReserveUIDs, which keeps the
// uids of Spaces at the isolation level users in the table space_uids.
//
// # Failures
//
// A wrong value of a key that decides how the Space is built or run is a *ConfigError. A wrong value of any other key
// is a warning. If no uid is left, ReserveUIDs returns an *UIDsExhaustedError. A missing app file is an *AppFileError, and a folder that cannot be read is a *FolderError. Every
// error names the next step.
package space

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"spacehost/internal/lazyregexp"
)

// The Hub's defaults for missing keys (spaces-config-reference.md); sdk and app_file are what it writes into every
// new Gradio Space.
const (
	defaultSDK            = "gradio"
	defaultAppFile        = "app.py"
	defaultStartupTimeout = 30 * time.Minute
)

// maxText limits how much Open reads of a README.md or a requirements.txt, which may be untrusted. The Hub's own cards are
// a few kilobytes; front matter beyond the limit is not found.
const maxText = 1 << 20

// Space is an app folder that the host serves, as its README.md describes it. Fields named after a key of the front
// matter hold its text as written, and are empty if the key is missing, unless their comment states another default.
type Space struct {
	Dir  string // absolute
	Name string // the folder's name in [a-z0-9._-]: for URLs, file names and quota keys
	ID   string // "local/" + Name, where the Hub has "owner/name"

	Title             string // never empty: default is the folder's name
	Emoji             string
	ColorFrom         string
	ColorTo           string
	Thumbnail         string
	ShortDescription  string
	License           string // several are joined with a comma
	Header            string // mini or default
	BasePath          string // page shown first
	FullWidth         bool   // default: true
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
	PythonVersion  string        // empty: any version that the host supports
	AppFile        string        // clean, relative to Dir; the file exists inside Dir
	StartupTimeout time.Duration // default: 30 minutes
	PreloadFromHub []string      // "repository [file,file [commit]]"

	HFOAuth                  bool
	HFOAuthScopes            []string
	HFOAuthExpirationMinutes int // default: 480
	HFOAuthAuthorizedOrg     []string

	// Warnings are sentences for the author, ordered by line: what is unknown, ignored here, or rejected by the Hub.
	Warnings []string
	// Refused is the error with which ZeroGPU stops the Space before its build; nil if it builds the Space. Open returns
	// such a Space, because it can run here.
	Refused error
}

// Open reads the Space in dir. A missing README.md or missing front matter is a warning, so that a bare app.py can be
// tried; the contents of existing front matter must be valid. Errors are *FolderError, *ConfigError and
// *AppFileError.
func Open(dir string) (*Space, error) {
	dir, err := folder(dir)
	if err != nil {
		return nil, err
	}
	readme, err := readText(dir, "README.md")
	if err != nil {
		return nil, err
	}
	requirements, _ := readText(dir, requirementsName) // the build reports a file that cannot be read
	front, err := parse(readme)
	if err != nil {
		return nil, err
	}
	s, err := front.space(dir)
	if err != nil {
		return nil, err
	}
	if err := checkAppFile(s.Dir, s.AppFile, front.line("app_file")); err != nil {
		return nil, err
	}
	torch := CheckRequirements(requirements)
	s.Warnings, s.Refused = sentences(append(front.sorted(), torch...)), refusal(torch)
	return s, nil
}

// Unread describes the Space in dir as an empty README.md would, without reading it: for a Space that Open refuses.
func Unread(dir string) *Space {
	if abs, err := filepath.Abs(dir); err == nil {
		dir = abs
	}
	name := NameOf(dir)
	return &Space{Dir: dir, Name: name, ID: "local/" + name, Title: filepath.Base(dir), Header: headers[1], FullWidth: true,
		SDK: defaultSDK, AppFile: defaultAppFile, StartupTimeout: defaultStartupTimeout, HFOAuthExpirationMinutes: 480}
}

// folder returns dir as an absolute path, or an error if it is not a readable folder.
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

// readText returns nil if there is no such file.
func readText(dir, name string) ([]byte, error) {
	path := filepath.Join(dir, name)
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, &FolderError{Dir: dir, Err: err}
	}
	if !info.Mode().IsRegular() { // reading a pipe would block forever
		return nil, &ConfigError{Code: CannotRead, Problem: name + " is not a regular file", Next: "replace it with a text file"}
	}
	head, err := readHead(path)
	if err != nil {
		return nil, &FolderError{Dir: dir, Err: err}
	}
	return head, nil
}

// readHead never returns nil without an error: nil means a missing file.
func readHead(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxText))
}

// checkAppFile checks that appFile is a file inside dir after all links are followed: the file is executed, and shown
// by the console.
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

// inside reports whether real, a path without links, is in dir.
func inside(dir, real string) bool {
	root, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return false
	}
	rel, err := filepath.Rel(root, real)
	return err == nil && filepath.IsLocal(rel)
}

var notInNames = lazyregexp.New(`[^a-z0-9._-]+`)

// NameOf turns a folder's name into one that is safe in URLs, file names and quota keys. A name without any allowed
// character (a folder called "画像") becomes "space-" and a hash, so that two such names stay distinct.
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
