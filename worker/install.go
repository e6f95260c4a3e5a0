package worker

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

//go:embed runner/*.py runner/spacehost_runner/*.py
var runner embed.FS

// InstallRunner writes the runner below dir, once per version, and returns the folder for PYTHONPATH. Two hosts may
// call it at the same time.
func InstallRunner(dir string) (string, error) {
	files, err := fs.Sub(runner, "runner")
	if err != nil {
		return "", err
	}
	name, err := digest(files)
	if err != nil {
		return "", err
	}
	final := filepath.Join(dir, name)
	if _, err := os.Stat(final); err == nil {
		return final, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("install runner: %w", err)
	}
	draft, err := os.MkdirTemp(dir, name+".*")
	if err != nil {
		return "", fmt.Errorf("install runner: %w", err)
	}
	defer os.RemoveAll(draft)
	if err := os.CopyFS(filepath.Join(draft, "runner"), files); err != nil {
		return "", fmt.Errorf("install runner: %w", err)
	}
	if err := os.Rename(filepath.Join(draft, "runner"), final); err != nil {
		if _, other := os.Stat(final); other != nil { // no other host has installed it meanwhile
			return "", fmt.Errorf("install runner: %w", err)
		}
	}
	return final, nil
}

func digest(files fs.FS) (string, error) {
	sum := sha256.New()
	err := fs.WalkDir(files, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := fs.ReadFile(files, path)
		fmt.Fprintf(sum, "%s %d\n", path, len(data))
		sum.Write(data)
		return err
	})
	return hex.EncodeToString(sum.Sum(nil))[:16], err
}
