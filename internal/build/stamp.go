package build

import (
	"encoding/json"
	"os"
	"path/filepath"
)

// stampName is the file that marks an environment as complete, and lists its contents.
const stampName = "environment.json"

// readStamp returns the environment in home if it is complete and its base Python still exists.
func readStamp(home string) (*Environment, bool) {
	data, err := os.ReadFile(filepath.Join(home, stampName))
	if err != nil {
		return nil, false
	}
	env := &Environment{}
	if json.Unmarshal(data, env) != nil {
		return nil, false
	}
	_, err = os.Stat(env.Python) // follows the link to the base Python
	return env, err == nil
}

// writeStamp writes the stamp atomically.
func writeStamp(home string, env *Environment) error {
	data, err := json.MarshalIndent(env, "", "  ")
	if err != nil {
		return err
	}
	temporary := filepath.Join(home, stampName+".new")
	if err := os.WriteFile(temporary, data, 0o644); err != nil {
		return err
	}
	return os.Rename(temporary, filepath.Join(home, stampName))
}
