package fetchspace

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Fetcher clones and updates Spaces. It is not safe for concurrent use of the same folder.
type Fetcher struct {
	Dir      string // of all Clones
	Endpoint string // see the function Endpoint
	Token    string // of the Hub; empty: none
	// Note receives sentences for the user: what is about to be cloned, and what a Clone lacks. nil: no sentence.
	Note func(text string)
}

// New returns a Fetcher with the Endpoint and the token of the environment.
func New(dir string, note func(text string)) *Fetcher {
	return &Fetcher{Dir: dir, Endpoint: Endpoint(), Token: os.Getenv("HF_TOKEN"), Note: note}
}

// Resolve returns the folder of a Space that a command names: the argument itself, or the Clone of a Source in the folder clones,
// which it fetches. Errors are those of Fetch.
func Resolve(ctx context.Context, argument, clones string, note func(text string)) (dir string, err error) {
	f := New(clones, note)
	source, ok := Parse(argument, f.Endpoint)
	if !ok {
		return argument, nil
	}
	dir, err = f.Fetch(ctx, source)
	if failed := (*Error)(nil); errors.As(err, &failed) && source.id == argument {
		return "", fmt.Errorf("there is no folder %s, and spacehost %w", argument, err)
	}
	return dir, err
}

// Error reports that a Source could not be cloned.
type Error struct {
	Source  string // as git or the user names it
	Problem string
	Next    string // the next step, as an imperative
	Err     error  // may be nil
}

func (e *Error) Error() string {
	return fmt.Sprintf("cannot clone %s: %s; %s", e.Source, e.Problem, e.Next)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// fetchedRef names the commit that Fetch has written last. A Clone at another commit has been changed.
const fetchedRef = "refs/spacehost/fetched"

// Fetch returns the folder of a Source. It clones the Source, or updates its Clone. Errors are *Error, and those of a ctx that
// has ended.
func (f *Fetcher) Fetch(ctx context.Context, s Source) (dir string, err error) {
	if u, err := url.Parse(s.URL); err == nil && u.User != nil {
		if _, has := u.User.Password(); has || u.Scheme == "http" || u.Scheme == "https" { // a token may stand in place of the name
			u.User = nil
			return "", &Error{u.String(), "git would store the name or password of the address on the disk", "leave it out, and let a credential helper of git answer", nil}
		}
	}
	if s.Subdomain != "" {
		if s, err = f.resolve(ctx, s.Subdomain); err != nil {
			return "", err
		}
	}
	dir = filepath.Join(f.Dir, s.Folder)
	c := clone{dir, filepath.Join(f.Dir, repositories, s.Folder+".git")}
	isNew := !exists(c.dir) || !exists(c.gitDir)
	if _, missing := exec.LookPath("git"); missing != nil {
		if !isNew {
			f.note("%s is not updated: git is not installed", dir)
			return dir, nil
		}
		return "", f.withoutGit(s, missing)
	}
	if isNew {
		err = f.clone(ctx, s, c)
	} else {
		f.update(ctx, c)
	}
	if err != nil {
		return "", err
	}
	f.completeLFS(ctx, c)
	return dir, ctx.Err()
}

// repositories is the folder of the git directories of all Clones, in the Fetcher's folder. They are not in the Clones: a Space
// may write to its folder, and git executes programs that the configuration in a git directory names (core.fsmonitor, filters).
const repositories = ".repositories"

// clone is the folder of a Clone and its git directory. The zero value is none.
type clone struct{ dir, gitDir string }

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func (f *Fetcher) note(format string, args ...any) {
	if f.Note != nil {
		f.Note(fmt.Sprintf(format, args...))
	}
}

func (f *Fetcher) withoutGit(s Source, err error) error {
	next := fmt.Sprintf("install git, or clone it elsewhere with `git clone %s` and name its folder", s.URL)
	if s.id != "" {
		_, name, _ := strings.Cut(s.id, "/")
		next = fmt.Sprintf("install git, or run `hf download --repo-type space %s --local-dir %s` and name the folder %[2]s", s.id, name)
	}
	return &Error{s.URL, "git is not installed", next, err}
}

// clone writes to folders beside those of c first, so that both are whole once the Clone exists.
func (f *Fetcher) clone(ctx context.Context, s Source, c clone) error {
	f.note("cloning %s into %s ...", s.URL, c.dir)
	fail := func(err error) error {
		return &Error{s.URL, err.Error(), "make " + f.Dir + " a writable folder, or choose another with --state", err}
	}
	if exists(c.dir) {
		return &Error{s.URL, c.dir + " exists and was not cloned by spacehost", "move it away", nil}
	}
	for _, path := range []string{c.dir, c.gitDir} {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return fail(err)
		}
	}
	partial, err := os.MkdirTemp(filepath.Dir(c.dir), ".cloning-")
	if err != nil {
		return fail(err)
	}
	defer os.RemoveAll(partial)
	whole := clone{filepath.Join(partial, "space"), filepath.Join(partial, "git")}
	if _, err := f.git(ctx, clone{dir: partial}, "clone", "--quiet", "--depth", "1", "--no-recurse-submodules", "--separate-git-dir", whole.gitDir, "--", s.URL, whole.dir); err != nil {
		return f.explain(ctx, s, err)
	}
	if _, err := f.git(ctx, whole, "update-ref", fetchedRef, "HEAD"); err != nil {
		return f.explain(ctx, s, err)
	}
	if err := os.Remove(filepath.Join(whole.dir, ".git")); err != nil { // the file that names the git directory
		return fail(err)
	}
	if err := os.RemoveAll(c.gitDir); err != nil { // of a Clone that the user has deleted
		return fail(err)
	}
	if err := os.Rename(whole.gitDir, c.gitDir); err != nil {
		return fail(err)
	}
	if err := os.Rename(whole.dir, c.dir); err != nil {
		return fail(err)
	}
	return nil
}

// explain turns the output of git into an *Error.
func (f *Fetcher) explain(ctx context.Context, s Source, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	text := err.Error()
	refused := strings.Contains(text, "could not read Username") || strings.Contains(text, "Authentication failed") || strings.Contains(text, "error: 403") || strings.Contains(text, "not found")
	switch {
	case refused && f.Token == "":
		return &Error{s.URL, "there is no such Space, or it is private", "correct its name, or set HF_TOKEN to a token that may read it", err}
	case refused:
		return &Error{s.URL, "there is no such Space, or HF_TOKEN may not read it", "correct its name, or set another HF_TOKEN", err}
	}
	return &Error{s.URL, text, "correct the address or the connection", err}
}

// update brings a Clone to the newest commit. What the user has changed stays.
func (f *Fetcher) update(ctx context.Context, c clone) {
	if changed := f.changed(ctx, c); changed != "" {
		f.note("%s is not updated: %s; to discard them, delete the folder", c.dir, changed)
		return
	}
	err := f.toNewest(ctx, c)
	if err != nil && ctx.Err() == nil {
		f.note("%s is not updated, and used as it is: %v", c.dir, err)
	}
}

func (f *Fetcher) toNewest(ctx context.Context, c clone) error {
	if _, err := f.git(ctx, c, "fetch", "--quiet", "--depth", "1", "--no-recurse-submodules", "origin", "HEAD"); err != nil {
		return err
	}
	before, _ := f.git(ctx, c, "rev-parse", "HEAD")
	newest, err := f.git(ctx, c, "rev-parse", "FETCH_HEAD")
	if err != nil || before == newest {
		return err
	}
	branch, err := f.git(ctx, c, "symbolic-ref", "--short", "HEAD")
	if err != nil {
		return err
	}
	// checkout refuses to overwrite files that git does not know, unlike reset.
	if _, err := f.git(ctx, c, "checkout", "--quiet", "--no-recurse-submodules", "-B", branch, newest); err != nil {
		return err
	}
	f.note("%s is updated to commit %.10s", c.dir, newest)
	_, err = f.git(ctx, c, "update-ref", fetchedRef, newest)
	return err
}

// changed describes what the user has changed in a Clone; "" if there is nothing. Files that git does not know, which the app
// may have written, do not count.
func (f *Fetcher) changed(ctx context.Context, c clone) string {
	status, err := f.status(ctx, c, "--untracked-files=no")
	if err != nil {
		return "its changes cannot be determined: " + err.Error()
	}
	if status != "" {
		return "it has changes of yours"
	}
	head, _ := f.git(ctx, c, "rev-parse", "HEAD")
	if fetched, _ := f.git(ctx, c, "rev-parse", "--verify", "--quiet", fetchedRef); fetched != head {
		return "it has commits of yours"
	}
	return ""
}

// harmless are settings by which git executes no program that files of a Space name.
var harmless = []string{"-c", "core.fsmonitor=false", "-c", "core.hooksPath=" + os.DevNull, "-c", "submodule.recurse=false", "-c", "diff.ignoreSubmodules=all"}

// git runs git on a Clone, or in the folder of one that has no git directory yet. It returns the output without the last line break.
// An error contains what git printed.
func (f *Fetcher) git(ctx context.Context, c clone, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", append(slices.Clone(harmless), args...)...)
	cmd.Dir, cmd.WaitDelay = c.dir, time.Second
	cmd.Env = slices.DeleteFunc(os.Environ(), func(pair string) bool { return strings.HasPrefix(pair, "HF_TOKEN=") }) // git gets it as header
	cmd.Env = append(cmd.Env, "GIT_TERMINAL_PROMPT=0", "LC_ALL=C")
	if c.gitDir != "" {
		cmd.Env = append(cmd.Env, "GIT_DIR="+c.gitDir, "GIT_WORK_TREE="+c.dir)
	}
	cmd.Env = append(cmd.Env, f.header()...)
	var out, errText bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errText
	if err := cmd.Run(); err != nil {
		text := strings.Join(strings.Fields(errText.String()), " ")
		if text == "" {
			text = err.Error()
		}
		return "", fmt.Errorf("git %s: %s", args[0], text)
	}
	return strings.TrimSpace(out.String()), nil
}

// header returns the variables by which git sends the token to the Endpoint, and to no other address. GIT_CONFIG_COUNT needs
// git 2.31.
func (f *Fetcher) header() []string {
	if f.Token == "" {
		return nil
	}
	value := "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("token:"+f.Token))
	return []string{"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=http." + f.Endpoint + "/.extraHeader", "GIT_CONFIG_VALUE_0=" + value}
}

// resolveTimeout limits the request for the name of a Space at hf.space.
const resolveTimeout = 30 * time.Second

// resolve finds the Space of an address of hf.space, by the request of Gradio's own client (@gradio/client, check_space_status).
func (f *Fetcher) resolve(ctx context.Context, subdomain string) (Source, error) {
	address := subdomain + ".hf.space"
	fail := func(problem string, err error) error {
		return &Error{address, problem, "name it as owner/space", err}
	}
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, f.Endpoint+"/api/spaces/by-subdomain/"+url.PathEscape(subdomain), nil)
	if err != nil {
		return Source{}, fail("the address of the Hub is wrong: "+err.Error(), err)
	}
	if f.Token != "" {
		r.Header.Set("Authorization", "Bearer "+f.Token)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return Source{}, fail("the Hub does not answer: "+err.Error(), err)
	}
	defer answer.Body.Close()
	var found struct{ ID string }
	if answer.StatusCode != http.StatusOK || json.NewDecoder(answer.Body).Decode(&found) != nil || !spaceID.MatchString(found.ID) {
		return Source{}, fail(fmt.Sprintf("the Hub knows no such Space (status %d)", answer.StatusCode), nil)
	}
	return onHub(found.ID, f.Endpoint), nil
}
