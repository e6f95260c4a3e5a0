package cli

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"spacehost/internal/fetchspace"
)

// fetchSpaces replaces each name of a Space on the Hub, and each URL of a repository, by the folder of its clone.
func fetchSpaces(c *cobra.Command, state string, dirs []string) error {
	fetcher := fetchspace.New(filepath.Join(state, "clones"), func(text string) { fmt.Fprintln(c.ErrOrStderr(), "note:", text) })
	for i, argument := range dirs {
		source, ok := fetchspace.Parse(argument, fetcher.Endpoint)
		if !ok {
			continue
		}
		dir, err := fetcher.Fetch(c.Context(), source)
		if failed := (*fetchspace.Error)(nil); errors.As(err, &failed) {
			return fmt.Errorf("there is no folder %s, and spacehost %w", argument, err)
		}
		if err != nil {
			return err
		}
		dirs[i] = dir
	}
	return nil
}
