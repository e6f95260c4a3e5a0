package build

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// describeScript prints what an interpreter has, as one line of JSON. Its argument is "import" to have the
// packages imported too.
const describeScript = `import importlib, importlib.metadata, importlib.util, json, sys
def version(name):
    if importlib.util.find_spec(name) is None:
        return ""
    if sys.argv[1:] == ["import"]:
        importlib.import_module(name)
    return importlib.metadata.version(name)
print(json.dumps({"gradio": version("gradio"), "spaces": version("spaces"), "dir": sys.prefix,
    "pythonVersion": "%d.%d.%d" % sys.version_info[:3]}))`

// describe runs the script and reads its answer, which stands last: packages print things when imported.
func (j *job) describe(ctx context.Context, python string, args ...string) (*Environment, error) {
	var said bytes.Buffer
	argv := append([]string{python, "-I", "-c", describeScript}, args...)
	if err := j.runTo(ctx, &said, argv...); err != nil {
		return nil, err
	}
	lines := strings.Split(strings.TrimSpace(said.String()), "\n")
	env := &Environment{Python: python}
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), env); err != nil {
		return nil, fmt.Errorf("read what %s says of itself: %w", python, err)
	}
	return env, nil
}

// readBack is the last step of making an environment. It imports gradio and spaces in earnest: versions
// that do not fit each other are found here, as BUILD_ERROR, and what Python compiles is not compiled
// again at the first start.
func (j *job) readBack(ctx context.Context) (*Environment, error) {
	return j.describe(ctx, pythonIn(j.home), "import")
}

// adopt takes Config.Interpreter as it is. It only looks whether the packages are there: importing them
// takes seconds, and the app will do it anyway.
func (j *job) adopt(ctx context.Context) (*Environment, error) {
	const step = "checking the interpreter"
	python, err := findInterpreter(j.config.Interpreter)
	if err != nil {
		return nil, &Error{Step: step, Problem: fmt.Sprintf("there is no program %s", j.config.Interpreter),
			Hint: "give the path of a Python by --python", LogPath: j.output.path, Err: err}
	}
	j.output.restart()
	j.output.heading(step)
	env, err := j.describe(ctx, python)
	if tool, failed := errors.AsType[*toolError](err); failed {
		return nil, &Error{Step: step, Problem: fmt.Sprintf("%s is not a Python that runs", python),
			Hint: "give another by --python", LogPath: j.output.path, Tail: lastLines(tool.output), Err: err}
	}
	if err != nil {
		return nil, j.wrong(step, err)
	}
	if err := j.suits(step, env); err != nil {
		return nil, err
	}
	env.Cached = true
	j.warnings = append(j.warnings, j.differences(env)...)
	return env, nil
}

// suits says what env lacks, if anything.
func (j *job) suits(step string, env *Environment) error {
	e := &Error{Step: step, LogPath: j.output.path}
	version, _ := parseRelease(env.PythonVersion)
	switch {
	case version.before(oldestPython):
		e.Problem = fmt.Sprintf("%s is Python %s, and a Space needs 3.10 or newer", env.Python, env.PythonVersion)
		e.Hint = "give another by --python"
	case env.Gradio == "" || env.Spaces == "":
		e.Problem = fmt.Sprintf("%s has no %s", env.Python, missing(env))
		e.Hint = fmt.Sprintf(`install them with "%s -m pip install %s", or leave --python out`, env.Python, strings.Join(j.sdk()[:2], " "))
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

// differences names what README.md asks for and Config.Interpreter does not have.
func (j *job) differences(env *Environment) []string {
	var all []string
	if asked := j.spec.Gradio; asked != "" && !sameVersion(asked, env.Gradio) {
		all = append(all, fmt.Sprintf("README.md asks for gradio %s, and %s has %s", asked, env.Python, env.Gradio))
	}
	if asked := j.spec.Python; asked != "" && asked != env.PythonVersion && !strings.HasPrefix(env.PythonVersion, asked+".") {
		all = append(all, fmt.Sprintf("README.md asks for Python %s, and %s is %s", asked, env.Python, env.PythonVersion))
	}
	return all
}

// sameVersion counts 6.0 and 6.0.0 as one, as PEP 440 does.
func sameVersion(asked, has string) bool {
	return asked == has || strings.TrimSuffix(has, ".0") == asked || strings.TrimSuffix(asked, ".0") == has
}
