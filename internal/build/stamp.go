package build

import (
	"encoding/json"
	"os"
	"path/filepath"
)

// stampName is the file that says that an environment is complete, and what is in it.
const stampName = "environment.json"

// readStamp returns the environment in home if it is complete, and the Python under it is still there.
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

// writeStamp puts the stamp there whole or not at all.
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
