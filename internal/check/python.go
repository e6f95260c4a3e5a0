package check

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"spacehost/internal/lazyregexp"
)

//go:embed reader/*.py
var reader embed.FS

// readerTimeout bounds the reading of one Space. Usual apps take less than 0.3 s.
const readerTimeout = 60 * time.Second

// output is what the Python reader has found.
type output struct {
	Facts       []Fact     `json:"facts"`
	Ignores     []Ignore   `json:"ignores"`
	LookedAt    []string   `json:"looked_at"`
	NotLookedAt []string   `json:"not_looked_at"`
	Inventory   *Inventory `json:"inventory"` // nil: the app file could not be read
}

// readPython reads the Python of the Space in dir, beginning with appFile, by the embedded script. python is an
// interpreter of version 3.9 or later; it runs that script only, without site-packages. Errors are those of the
// interpreter; what is wrong with the Space are Facts and sentences. It may be called from any goroutine.
func readPython(ctx context.Context, python, dir, appFile string) (output, error) {
	script, remove, err := installReader()
	if err != nil {
		return output{}, err
	}
	defer remove()
	ctx, cancel := context.WithTimeout(ctx, readerTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, python, "-I", "-S", script, dir, filepath.ToSlash(appFile))
	cmd.WaitDelay = time.Second
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return output{}, readerError(ctx, python, err, stderr.String())
	}
	var out output
	if err := json.Unmarshal(stdout.Bytes(), &out); err != nil {
		return output{}, fmt.Errorf("read the Python of the Space with %s: unexpected output: %w", python, err)
	}
	return out, nil
}

// raised matches the last line of a traceback that is no sign of an old interpreter, such as SyntaxError or ImportError.
var raised = lazyregexp.New(`^(ValueError|RecursionError|MemoryError|OverflowError|KeyError|IndexError|OSError|PermissionError|FileNotFoundError|UnicodeEncodeError)\b`)

// readerError names why the interpreter did not print a document.
func readerError(ctx context.Context, python string, err error, stderr string) error {
	lines := strings.Split(strings.TrimSpace(stderr), "\n")
	var exit *exec.ExitError
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fmt.Errorf("read the Python of the Space: not finished after %s", readerTimeout)
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.As(err, &exit) && raised.MatchString(lines[len(lines)-1]):
		return fmt.Errorf("read the Python of the Space with %s: %w: %.300s; report this fault of the reader", python, err, lines[len(lines)-1])
	case errors.As(err, &exit):
		return fmt.Errorf("read the Python of the Space with %s: %w: %.300s; use an interpreter of Python 3.9 or later", python, err, lines[len(lines)-1])
	}
	return fmt.Errorf("read the Python of the Space: start %s: %w; name an interpreter of Python 3.9 or later with --python", python, err)
}

// installReader writes the script into the user's cache folder, once per version, so that Python keeps its compiled form.
// Without such a folder it writes a temporary one. remove is to be called after the last use.
func installReader() (dir string, remove func(), err error) {
	name, err := readerVersion()
	if err != nil {
		return "", nil, err
	}
	if cache, err := os.UserCacheDir(); err == nil {
		if final, err := copyReader(filepath.Join(cache, "spacehost", "reader"), name); err == nil {
			return final, func() {}, nil
		}
	}
	temporary, err := os.MkdirTemp("", "spacehost-reader-")
	if err != nil {
		return "", nil, fmt.Errorf("install the reader of Python: %w", err)
	}
	final, err := copyReader(temporary, name)
	if err != nil {
		os.RemoveAll(temporary)
		return "", nil, fmt.Errorf("install the reader of Python: %w", err)
	}
	return final, func() { os.RemoveAll(temporary) }, nil
}

// copyReader writes the script to dir/name, unless it is there. Two processes may do so at the same time.
func copyReader(dir, name string) (string, error) {
	final := filepath.Join(dir, name)
	if _, err := os.Stat(final); err == nil {
		return final, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	draft, err := os.MkdirTemp(dir, name+".*")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(draft)
	files, err := fs.Sub(reader, "reader")
	if err != nil {
		return "", err
	}
	if err := os.CopyFS(filepath.Join(draft, "reader"), files); err != nil {
		return "", err
	}
	if err := os.Rename(filepath.Join(draft, "reader"), final); err != nil {
		if _, other := os.Stat(final); other != nil { // no other process has installed it meanwhile
			return "", err
		}
	}
	return final, nil
}

// readerVersion is a digest of the script.
func readerVersion() (string, error) {
	sum := sha256.New()
	err := fs.WalkDir(reader, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := reader.ReadFile(path)
		fmt.Fprintf(sum, "%s %d\n", path, len(data))
		sum.Write(data)
		return err
	})
	return hex.EncodeToString(sum.Sum(nil))[:16], err
}

// Inventory is what the Python reader knows about an app, for the later stages.
type Inventory struct {
	ImportsSpaces bool          `json:"imports_spaces"` // the import of the app reaches `import spaces`
	GPUFunctions  []GPUFunction `json:"gpu_functions"`
	Endpoints     []Endpoint    `json:"endpoints"` // in the order of the code
	Variables     []Variable    `json:"variables"`
	Imports       []Import      `json:"imports"` // of libraries, each top-level name once
}

// GPUFunction is a function with @spaces.GPU. Lines are those of its def and of its decorator's duration.
type GPUFunction struct {
	Name          string  `json:"name"`
	File          string  `json:"file"`
	Line          int     `json:"line"`
	DecoratorFile string  `json:"decorator_file"`
	DecoratorLine int     `json:"decorator_line"`
	Generator     bool    `json:"generator"`
	Size          string  `json:"size"`     // "": the default, large
	Duration      string  `json:"duration"` // fixed, dynamic or unknown
	Seconds       float64 `json:"seconds"`  // of a fixed Duration; 60 without one
	// A dynamic Duration is computed by DurationFunction. Longest and Shortest are its values at the bounds of the inputs,
	// nil if reading cannot evaluate it; Complete reports whether all bounds could be evaluated.
	DurationFunction string   `json:"duration_function"`
	DurationFile     string   `json:"duration_file"`
	DurationLine     int      `json:"duration_line"`
	Longest          *Extreme `json:"longest"`
	Shortest         *Extreme `json:"shortest"`
	Complete         bool     `json:"complete"`
}

// Extreme is the result of a duration function for some inputs, by parameter.
type Extreme struct {
	Seconds float64           `json:"seconds"`
	Inputs  map[string]string `json:"inputs"`
}

// Endpoint is one binding of a function to an event, an interface, an API or a route.
type Endpoint struct {
	Kind     string           `json:"kind"` // event, interface, chat, api, render or route
	File     string           `json:"file"`
	Line     int              `json:"line"`
	APIName  string           `json:"api_name"` // with its slash; "": none
	Hidden   bool             `json:"hidden"`   // api_name=False
	Function string           `json:"function"` // "": JavaScript alone, or unknown
	GPU      bool             `json:"gpu"`      // Function is a GPU function
	Label    string           `json:"label"`    // of the button, or the route
	Event    string           `json:"event"`
	Inputs   []map[string]any `json:"inputs"` // kind, line, label, minimum, maximum, step, value, choices as far as known; nil: unknown
	Examples [][]any          `json:"examples"`
}

// Variable is one read of an environment variable.
type Variable struct {
	Name     string `json:"name"`
	File     string `json:"file"`
	Line     int    `json:"line"`
	Required bool   `json:"required"`  // without the variable the read raises KeyError
	AtImport bool   `json:"at_import"` // the start reads it, not only a call
}

// Import is the first import of a library.
type Import struct {
	Name string `json:"name"` // the top-level module
	File string `json:"file"`
	Line int    `json:"line"`
}

// Place returns where the decorator is, or the function.
func (f GPUFunction) Place() (file string, line int) {
	return cmp.Or(f.DecoratorFile, f.File), cmp.Or(f.DecoratorLine, f.Line)
}
