package cli

import (
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/spf13/cobra"

	"spacehost/internal/config"
)

// newLogin is the command for whoever has lost the link that `run` has printed.
func newLogin() *cobra.Command {
	var state string
	c := &cobra.Command{
		Use:   "login",
		Short: "Print a link that signs this machine's user in at the console of a running host",
		Long: `Print a link to the console of the running host: whoever opens it is signed in there as the local visitor, and can
sign in to Spaces from there. It is good once, for twelve hours. People with a token of theirs need none.`,
		Args: usage(cobra.NoArgs),
	}
	addState(c, &state)
	c.RunE = func(c *cobra.Command, _ []string) error {
		dir, err := config.StateFolder(state)
		if err != nil {
			return err
		}
		body, err := tell(c.Context(), dir, order{http.MethodPost, "/login-link", nil})
		if err != nil {
			return err
		}
		var said struct{ URL string }
		if err := json.Unmarshal(body, &said); err != nil {
			return fmt.Errorf("the host's answer is not understood (another version?): %w", err)
		}
		return say(c, "%s\n", said.URL)
	}
	return c
}
