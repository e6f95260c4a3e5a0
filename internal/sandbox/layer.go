package sandbox

import (
	"fmt"

	"spacehost/internal/removal"
)

// RemoveLayer removes a folder that a Space has written, and the work folder of its overlay.
func RemoveLayer(dir string) error {
	for _, one := range []string{dir, dir + ".work"} {
		if err := removal.Tree(one); err != nil {
			return fmt.Errorf("remove layer %s: %w", one, err)
		}
	}
	return nil
}
