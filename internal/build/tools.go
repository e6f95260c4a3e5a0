package build

import (
	"context"
	"debug/elf"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"go.uber.org/zap"
)

// uvVersion is installed where uv is missing: the newest on PyPI in November 2026.
const uvVersion = "0.13.8"

// installer is uv or pip: the command lines that create an environment and install packages into it.
type installer struct {
	uv      bool
	program []string // files that a tool needs besides the environment
	venv    func(python, home string) []string
	install func(home string) []string
}

// uvInstaller makes uv behave like the Hub's pip.
//   - --index-strategy: the best version of all indexes is used, as requirement files with an --extra-index-url for torch expect.
//   - --seed: installs pip in the environment, since many Spaces call it when they start.
//   - --project: not the Space's folder, where uv would obey pyproject.toml and uv.toml.
func uvInstaller(uv string) installer {
	return installer{
		uv: true, program: []string{uv},
		venv: func(python, home string) []string {
			return []string{uv, "venv", "--project", filepath.Dir(home), "--seed", "--python", python, home}
		},
		install: func(home string) []string {
			return []string{uv, "pip", "install", "--project", filepath.Dir(home),
				"--index-strategy", "unsafe-best-match", "--python", pythonIn(home)}
		},
	}
}

// pipInstaller is used without uv. -I keeps the Space's own modules out of pip's sys.path (see probeScript).
func pipInstaller() installer {
	return installer{
		venv: func(python, home string) []string {
			return []string{python, "-I", "-m", "venv", home}
		},
		install: func(home string) []string {
			return []string{pythonIn(home), "-I", "-m", "pip", "install"}
		},
	}
}

func pythonIn(home string) string { return filepath.Join(home, "bin", "python") }

// findUV returns the uv on PATH, that of Config.UV, or the one installed by an earlier build.
func (j *job) findUV(ctx context.Context) (string, bool) {
	for _, name := range []string{"uv", j.config.UV, filepath.Join(j.uvHome(), "bin", "uv")} {
		path, err := exec.LookPath(name)
		if err == nil && j.confinement != nil {
			path, err = binary(path)
		}
		if err == nil && runs(ctx, path) {
			return path, true
		}
	}
	return "", false
}

// runs reports whether uv runs: a pyenv shim may not, nor an interrupted installation.
func runs(ctx context.Context, uv string) bool {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return command(ctx, uv, "--version").Run() == nil
}

// binary follows links to a compiled program, which runs wherever it is visible. The script of a version manager would
// need the files of that manager.
func binary(path string) (string, error) {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", err
	}
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	magic := make([]byte, len(elf.ELFMAG))
	if _, err := io.ReadFull(f, magic); err != nil || string(magic) != elf.ELFMAG {
		return "", fmt.Errorf("%s is not a compiled program", path)
	}
	return path, nil
}

func (j *job) uvHome() string { return filepath.Join(j.dir, "tools", "uv-"+uvVersion) }

// installUV chooses the installer. Without uv everything is installed by pip, only slower.
func (j *job) installUV(ctx context.Context) error {
	err := j.fetchUV(ctx)
	if err == nil {
		path := filepath.Join(j.uvHome(), "bin", "uv")
		if real, err := filepath.EvalSymlinks(path); err == nil {
			path = real
		}
		j.tool = uvInstaller(path)
		return nil
	}
	if ctx.Err() != nil {
		return err
	}
	fmt.Fprintf(j.output, "uv could not be installed, continuing with pip: %v\n", err)
	j.log.Warn("uv could not be installed, continuing with pip", zap.String("space", j.space), zap.Error(err))
	j.tool = pipInstaller()
	return nil
}

func (j *job) fetchUV(ctx context.Context) error {
	if err := os.MkdirAll(filepath.Dir(j.uvHome()), 0o755); err != nil {
		return err
	}
	release, err := j.acquireLock(ctx, j.uvHome()+".lock")
	if err != nil {
		return err
	}
	defer release()
	if runs(ctx, filepath.Join(j.uvHome(), "bin", "uv")) { // another host was faster
		return nil
	}
	if err := os.RemoveAll(j.uvHome()); err != nil {
		return err
	}
	pip := pipInstaller()
	if err := j.run(ctx, pip.venv(j.python.Path, j.uvHome())...); err != nil {
		return err
	}
	return j.run(ctx, append(pip.install(j.uvHome()), "uv=="+uvVersion)...)
}
