// Command gen writes the command-line reference to the file that it is given.
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
	if len(args) != 1 {
		return fmt.Errorf("usage: gen FILE")
	}
	var page bytes.Buffer
	if err := clidoc.Write(&page); err != nil {
		return err
	}
	return os.WriteFile(args[0], page.Bytes(), 0o644)
}
