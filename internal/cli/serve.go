package cli

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"spacehost/internal/config"
	"spacehost/internal/people"
)

// serveOptions are the flags of `spacehost serve`.
type serveOptions struct {
	config    string
	state     string
	check     bool
	asJSON    bool
	rebuild   bool
	readyJSON bool
}

func newServe() *cobra.Command {
	var o serveOptions
	c := &cobra.Command{
		Use:   "serve --config FILE",
		Short: "Serve the Spaces of a configuration file to the people that it names, until Ctrl-C",
		Long: `Serve the Spaces of a configuration file to the people that it names, until Ctrl-C. The file is YAML: Spaces
with their addresses, who may see them, people with their tiers and tokens, reverse proxies. docs/operator-guide.md
explains each key; examples/lab.yaml is one to begin with.

Who brings no token of a person's pays by address, as "unauthenticated", and so does this machine (as "local").
What is wrong in the file is said all at once, as FILE:LINE: KEY: what, before anything is started. A change
of the file holds from the next start on.

A Space whose environment cannot be made or whose app does not start leaves the others alone: its address answers
503 and says why, "spacehost space list" too, and it is tried again, at once by "spacehost space restart NAME".

Exit codes: 1 the host could not run (state folder, address, database, GPUs, people), 2 wrong usage,
3 a Space's README.md or app_file is wrong, 6 the configuration file is wrong.`,
		Example: `  spacehost serve --config lab.yaml
  spacehost serve --config lab.yaml --check         only say whether the file is right
  spacehost token hash --new                        a token for a person, and its line for the file`,
		Args: usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error { return o.run(c) },
	}
	f := c.Flags()
	f.SortFlags = false
	f.StringVar(&o.config, "config", "", "the configuration file")
	f.BoolVar(&o.check, "check", false, "say whether the file and the Spaces' README.md are right, start nothing")
	f.BoolVar(&o.asJSON, "json", false, "with --check: print the findings as JSON")
	f.StringVar(&o.state, "state", "", "folder for database, environments, logs; in place of the file's")
	f.BoolVar(&o.rebuild, "rebuild", false, "make the environments anew (factory rebuild)")
	f.BoolVar(&o.readyJSON, "ready-json", false, "print one JSON line on stdout once all Spaces answer or have failed to; all else goes to stderr")
	return c
}

func (o *serveOptions) run(c *cobra.Command) error {
	switch {
	case o.config == "":
		return &usageError{c, errors.New("--config FILE is missing")}
	case o.asJSON && !o.check:
		return &usageError{c, errors.New("--json goes with --check")}
	case o.check:
		return o.onlyCheck(c)
	}
	s, warnings, err := config.Load(o.config)
	o.warn(c, warnings)
	if err != nil {
		return err
	}
	if o.state != "" || s.State == "" {
		if s.State, err = config.StateFolder(o.state); err != nil {
			return &usageError{c, err}
		}
	}
	s.Rebuild, s.ReadyJSON = o.rebuild, o.readyJSON
	return runHost(c, s)
}

func (o *serveOptions) warn(c *cobra.Command, warnings []string) {
	for _, warning := range warnings {
		fmt.Fprintln(c.ErrOrStderr(), "warning:", warning)
	}
}

// checked is what --check --json prints.
type checked struct {
	OK       bool             `json:"ok"`
	File     string           `json:"file"`
	Spaces   []string         `json:"spaces"`
	People   []string         `json:"people"`
	Warnings []string         `json:"warnings"`
	Problems []config.Problem `json:"problems"`
	Error    string           `json:"error,omitempty"` // of a Space's own README.md
}

// onlyCheck says what a start would refuse, short of what only a start can find out.
func (o *serveOptions) onlyCheck(c *cobra.Command) error {
	s, warnings, err := config.Load(o.config)
	found := checked{File: o.config, Spaces: []string{}, People: []string{}, Warnings: append([]string{}, warnings...), Problems: []config.Problem{}}
	if err == nil {
		opened, wrong := s.OpenSpaces()
		for _, one := range opened {
			found.Spaces = append(found.Spaces, one.Name)
			for _, warning := range one.Warnings {
				found.Warnings = append(found.Warnings, one.Name+": "+warning)
			}
		}
		err = wrong
	}
	for _, p := range s.People {
		found.People = append(found.People, p.Name)
	}
	found.OK = err == nil
	if o.asJSON {
		return o.print(c, found, err)
	}
	o.warn(c, found.Warnings)
	if err != nil {
		return err
	}
	return say(c, "%s is right: %d Spaces (%s), %d people.", o.config, len(found.Spaces), strings.Join(found.Spaces, ", "), len(found.People))
}

// print leaves the sentences on stderr to the usual place.
func (o *serveOptions) print(c *cobra.Command, found checked, err error) error {
	var wrong *config.FileError
	if errors.As(err, &wrong) {
		found.Problems = wrong.Problems
	} else if err != nil {
		found.Error = err.Error()
	}
	text, _ := json.MarshalIndent(found, "", "  ") // plain strings
	if sayErr := say(c, "%s", text); sayErr != nil {
		return sayErr
	}
	return err
}

func newTokenHash() *cobra.Command {
	var makeNew, asJSON bool
	c := &cobra.Command{
		Use:   "hash",
		Short: "Print what the configuration of `spacehost serve` says of a token",
		Long: `Print the sha256: line with which a person's token stands in the configuration of "spacehost serve". The token
is read from stdin; --new makes one, and shows it this once on stderr, for the person. No host needs to run.`,
		Example: `  spacehost token hash --new
  spacehost token hash < token.txt`,
		Args: usage(cobra.NoArgs),
	}
	c.Flags().BoolVar(&makeNew, "new", false, "make a token")
	c.Flags().BoolVar(&asJSON, "json", false, "print the answer as JSON; with the token, if it is new")
	c.RunE = func(c *cobra.Command, _ []string) error {
		var answer struct {
			Token string `json:"token,omitempty"`
			Hash  string `json:"hash"`
		}
		if makeNew {
			answer.Token, answer.Hash = people.NewToken()
		} else {
			text, err := readToken(c.InOrStdin())
			if err == nil {
				answer.Hash, err = people.HashToken(text)
			}
			if err != nil {
				return &usageError{c, err}
			}
		}
		if asJSON {
			text, _ := json.Marshal(answer) // plain strings
			return say(c, "%s", text)
		}
		if makeNew {
			fmt.Fprintf(c.ErrOrStderr(), "%s\nThe token, shown this once: for the person. On stdout, its line for `tokens` in the configuration:\n", answer.Token)
		}
		return say(c, "%s", answer.Hash)
	}
	return c
}

// readToken reads one line.
func readToken(from io.Reader) (string, error) {
	if file, ok := from.(*os.File); ok {
		if info, err := file.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
			fmt.Fprintln(os.Stderr, "The token, then Enter:")
		}
	}
	line, err := bufio.NewReader(io.LimitReader(from, 4096)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("read the token from stdin: %w", err)
	}
	return strings.TrimSpace(line), nil
}
