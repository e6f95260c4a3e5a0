// Command measure prints the style figures of this repository: lengths of functions and files, and the rate of
// pronouns for unnamed persons in strings, comments and documentation.
//
// It finds the repository from the working directory. Directories given as arguments, relative to the root of the
// repository, restrict the figures to the files below them. With -words it lists each pronoun instead.
package main

import (
	"flag"
	"fmt"
	"os"

	"spacehost/internal/measures"
)

func main() {
	words := flag.Bool("words", false, "list each pronoun as file:line: text (default: print the tables)")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: measure [-words] [directory...]")
		flag.PrintDefaults()
	}
	flag.Parse()
	if err := run(*words, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "measure:", err)
		os.Exit(1)
	}
}

func run(words bool, dirs []string) error {
	root, err := measures.Root(".")
	if err != nil {
		return err
	}
	report, err := measures.Measure(root, dirs...)
	if err != nil {
		return err
	}
	if words {
		report.PrintWords(os.Stdout)
		return nil
	}
	return report.Print(os.Stdout)
}
