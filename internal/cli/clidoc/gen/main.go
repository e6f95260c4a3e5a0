// Command gen writes what is generated from the commands: the reference of the command line, man pages, and completions of
// shells.
package main

import (
	"bytes"
	"fmt"
	"os"

	"spacehost/internal/cli/clidoc"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 2 && args[0] == "--man":
		return clidoc.WriteMan(args[1])
	case len(args) == 2 && args[0] == "--completions":
		return clidoc.WriteCompletions(args[1])
	case len(args) != 1:
		return fmt.Errorf("usage: gen FILE | gen --man FOLDER | gen --completions FOLDER")
	}
	var page bytes.Buffer
	if err := clidoc.Write(&page); err != nil {
		return err
	}
	return os.WriteFile(args[0], page.Bytes(), 0o644)
}
