package build

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"spacehost/internal/lazyregexp"
)

// describeScript prints the properties of an interpreter as one line of JSON. With the argument "import" it also
// imports the packages.
const describeScript = `import importlib, importlib.metadata, importlib.util, json, sys
def version(name):
    if importlib.util.find_spec(name) is None:
        return ""
    if sys.argv[1:] == ["import"]:
        importlib.import_module(name)
    return importlib.metadata.version(name)
print(json.dumps({"gradio": version("gradio"), "spaces": version("spaces"), "dir": sys.prefix,
    "pythonVersion": "%d.%d.%d" % sys.version_info[:3]}))`

// describe runs the script and reads its result from the last line: packages may print when imported.
func (j *job) describe(ctx context.Context, as access, python string, args ...string) (*Environment, error) {
	var stdout bytes.Buffer
	argv := append([]string{python, "-I", "-c", describeScript}, args...)
	if _, err := j.runTo(ctx, as, &stdout, argv...); err != nil {
		return nil, err
	}
	lines := strings.Split(strings.TrimSpace(stdout.String()), "\n")
	env := &Environment{Python: python}
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), env); err != nil {
		return nil, fmt.Errorf("read the description of %s: %w", python, err)
	}
	for _, version := range []string{env.PythonVersion, env.Gradio, env.Spaces} {
		if !printedVersion.MatchString(version) {
			return nil, fmt.Errorf("read the description of %s: %.64q is not a version", python, version)
		}
	}
	return env, nil
}

// printedVersion limits what a package can claim to be its version. "" is that of a missing package.
var printedVersion = lazyregexp.New(`^[A-Za-z0-9.+!_-]{0,64}$`)

// verify is the last step of creating an environment. It imports gradio and spaces, so incompatible versions fail
// here as BUILD_ERROR. It also compiles the Python files, which makes the first start faster. Packages of the Space run
// and may print anything, so they do not decide about paths.
func (j *job) verify(ctx context.Context) (*Environment, error) {
	env, err := j.describe(ctx, install, pythonIn(j.home), "import")
	if err != nil {
		return nil, err
	}
	env.Python, env.Dir = pythonIn(j.home), j.home
	return env, j.checkSpaces("checking the environment", env)
}

// useInterpreter uses Config.Interpreter unchanged. It only checks that the packages are installed: importing them
// takes seconds, and the app does it anyway.
func (j *job) useInterpreter(ctx context.Context) (*Environment, error) {
	const step = "checking the interpreter"
	python, err := findInterpreter(j.config.Interpreter)
	if err != nil {
		return nil, &Error{Step: step, Problem: fmt.Sprintf("program %s not found", j.config.Interpreter),
			Hint: `give the path of a Python with --python or the key "python"`, LogPath: j.output.path, Err: err}
	}
	j.output.restart()
	j.output.heading(step)
	env, err := j.describe(ctx, asHost, python)
	if tool, failed := errors.AsType[*toolError](err); failed {
		return nil, &Error{Step: step, Problem: fmt.Sprintf("%s is not a working Python", python),
			Hint: `name another interpreter with --python or the key "python"`, LogPath: j.output.path, Tail: lastLines(tool.output), Err: err}
	}
	if err != nil {
		return nil, j.machineError(step, err)
	}
	if err := j.checkInterpreter(step, env); err != nil {
		return nil, err
	}
	if err := j.checkSpaces(step, env); err != nil {
		return nil, err
	}
	env.Cached = true
	j.warnings = append(j.warnings, j.differences(env)...)
	return env, nil
}

// checkInterpreter returns an error if env is too old or lacks a package.
func (j *job) checkInterpreter(step string, env *Environment) error {
	e := &Error{Step: step, LogPath: j.output.path}
	version, _ := parseRelease(env.PythonVersion)
	switch {
	case version.before(oldestPython):
		e.Problem = fmt.Sprintf("%s is Python %s, but a Space needs 3.10 or newer", env.Python, env.PythonVersion)
		e.Hint = `name another interpreter with --python or the key "python"`
	case env.Gradio == "" || env.Spaces == "":
		e.Problem = fmt.Sprintf("%s has no %s", env.Python, missing(env))
		e.Hint = fmt.Sprintf(`install them with "%s -m pip install %s", or omit --python and the key "python"`, env.Python, strings.Join(j.sdk()[:2], " "))
	default:
		return nil
	}
	return e
}

func missing(env *Environment) string {
	switch {
	case env.Gradio != "" && env.Spaces == "":
		return "spaces"
	case env.Gradio == "" && env.Spaces != "":
		return "gradio"
	}
	return "gradio and no spaces"
}

// differences lists what README.md requires and Config.Interpreter does not have.
func (j *job) differences(env *Environment) []string {
	var all []string
	if requested := j.spec.Gradio; requested != "" && !sameVersion(requested, env.Gradio) {
		all = append(all, fmt.Sprintf("README.md requires gradio %s, but %s has %s", requested, env.Python, env.Gradio))
	}
	if requested := j.spec.Python; requested != "" && requested != env.PythonVersion && !strings.HasPrefix(env.PythonVersion, requested+".") {
		all = append(all, fmt.Sprintf("README.md requires Python %s, but %s is %s", requested, env.Python, env.PythonVersion))
	}
	return all
}

// sameVersion treats 6.0 and 6.0.0 as equal, as PEP 440 does.
func sameVersion(requested, has string) bool {
	return requested == has || strings.TrimSuffix(has, ".0") == requested || strings.TrimSuffix(requested, ".0") == has
}

// CheckInterpreter reports whether Config.Interpreter can serve a Space: it is Python 3.10 or newer, and imports gradio and spaces.
// The import takes seconds and runs code of these packages. Nothing is written. Problems are *Error.
func (b *Builder) CheckInterpreter(ctx context.Context) error {
	j, err := b.newJob(Spec{})
	if err != nil {
		return err
	}
	defer j.close()
	j.workDir = "/"
	env, err := j.useInterpreter(ctx)
	if err != nil {
		return err
	}
	_, err = j.describe(ctx, asHost, env.Python, "import")
	tool, failed := errors.AsType[*toolError](err)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("import gradio and spaces with %s: %w", env.Python, context.Cause(ctx))
	case !failed:
		return j.machineError("checking the interpreter", err)
	}
	last, why := lastLines(tool.output), tool.err.Error()
	if len(last) > 0 {
		why = last[len(last)-1]
	}
	return &Error{Step: "checking the interpreter", Problem: fmt.Sprintf("%s cannot import gradio and spaces: %s", env.Python, why),
		Hint: "install releases that work together, or name another interpreter", LogPath: j.output.path, Tail: last, Err: err}
}
