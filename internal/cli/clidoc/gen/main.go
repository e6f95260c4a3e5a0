// Command gen writes what is generated from the commands: the reference of the command line, that of the rules of
// check, the OpenAPI document of the console, man pages, and completions of shells.
package main

import (
	"bytes"
	"fmt"
	"io"
	"os"

	"spacehost/internal/cli/clidoc"
	"spacehost/internal/dashboard"
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
	case len(args) == 2 && args[0] == "--rules":
		return writeFile(args[1], clidoc.WriteRules)
	case len(args) == 2 && args[0] == "--openapi":
		return writeFile(args[1], writeOpenAPI)
	case len(args) != 1:
		return fmt.Errorf("usage: gen FILE | gen --rules FILE | gen --openapi FILE | gen --man FOLDER | gen --completions FOLDER")
	}
	return writeFile(args[0], clidoc.Write)
}

func writeOpenAPI(w io.Writer) error {
	text, err := dashboard.Document()
	if err == nil {
		_, err = fmt.Fprintf(w, "%s\n", text)
	}
	return err
}

func writeFile(name string, write func(io.Writer) error) error {
	var page bytes.Buffer
	if err := write(&page); err != nil {
		return err
	}
	return os.WriteFile(name, page.Bytes(), 0o644)
}
