package build

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
)

// stampName is the file that marks an environment as complete, and lists its contents.
const stampName = "environment.json"

// readStamp returns the environment in home if it is complete and its base Python still exists. Packages of a Space could
// write to home when they were installed, so the stamp does not decide about paths.
func readStamp(home string) (*Environment, bool) {
	data, err := os.ReadFile(filepath.Join(home, stampName))
	if err != nil {
		return nil, false
	}
	env := &Environment{}
	if json.Unmarshal(data, env) != nil {
		return nil, false
	}
	env.Python, env.Dir = pythonIn(home), home
	_, err = os.Stat(env.Python) // follows the link to the base Python
	return env, err == nil
}

// writeStamp writes the stamp.
func writeStamp(home string, env *Environment) error {
	data, err := json.MarshalIndent(env, "", "  ")
	if err != nil {
		return err
	}
	return replaceFile(filepath.Join(home, stampName), data)
}

// replaceFile writes a file atomically. The temporary file is a new one: a link of that name would lead to another file.
func replaceFile(path string, data []byte) error {
	temporary, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path))
	if err != nil {
		return err
	}
	_, err = temporary.Write(data)
	if err = errors.Join(err, temporary.Chmod(0o644), temporary.Close()); err != nil {
		return err
	}
	return os.Rename(temporary.Name(), path)
}
