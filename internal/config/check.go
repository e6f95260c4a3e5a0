package config

import (
	"fmt"

	"spacehost/internal/space"
)

// Checked is a configuration file with which a host can start, as far as the file and the folders of its Spaces show.
type Checked struct {
	Settings Settings
	Spaces   []*space.Space // parallel to Settings.Spaces
	Warnings []string       // for the author of the file, those of each Space's README.md included
}

// Check reads a file as Load does, and opens the folders of its Spaces. `serve --check` and a reload use it. Errors: *FileError,
// and those of OpenSpaces; the result then contains what was read before.
func Check(path, state string) (c Checked, err error) {
	if c.Settings, c.Warnings, err = Load(path, state); err != nil {
		return c, err
	}
	if c.Spaces, err = c.Settings.OpenSpaces(); err != nil && len(c.Spaces) < len(c.Settings.Spaces) {
		err = fmt.Errorf("the Space %s: %w", c.Settings.Spaces[len(c.Spaces)].Unread().Name, err)
	}
	for _, one := range c.Spaces {
		for _, warning := range one.Warnings {
			c.Warnings = append(c.Warnings, one.Name+": "+warning)
		}
	}
	return c, err
}
