package cli

import (
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"spacehost/internal/config"
	"spacehost/internal/fetchspace"
)

// clones returns the folder of Spaces of the Hub in a state folder.
func clones(state string) (string, error) {
	state, err := config.StateFolder(state)
	return filepath.Join(state, "clones"), err
}

// fetchSpaces replaces each name of a Space on the Hub, and each URL of a repository, by the folder of its clone.
func fetchSpaces(c *cobra.Command, state string, dirs []string) error {
	folder, err := clones(state)
	for i := 0; i < len(dirs) && err == nil; i++ {
		dirs[i], err = fetchspace.Resolve(c.Context(), dirs[i], folder, func(text string) { fmt.Fprintln(c.ErrOrStderr(), "note:", text) })
	}
	return err
}
