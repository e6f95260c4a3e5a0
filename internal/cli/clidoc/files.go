package clidoc

import (
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra/doc"

	"spacehost/internal/cli"
)

// WriteMan writes one man page of section 1 per command into an existing folder. Their date is SOURCE_DATE_EPOCH, if it is
// set.
func WriteMan(folder string) error {
	root := cli.NewRoot()
	root.DisableAutoGenTag = true
	header := &doc.GenManHeader{Title: "SPACEHOST", Section: "1", Source: "spacehost", Manual: "spacehost"}
	if err := doc.GenManTree(root, header, folder); err != nil {
		return fmt.Errorf("write man pages: %w", err)
	}
	return nil
}

// WriteCompletions writes the completions for bash, zsh and fish into an existing folder, under the names under which the
// shells look for them.
func WriteCompletions(folder string) error {
	root := cli.NewRoot()
	for name, write := range map[string]func(path string) error{
		"spacehost":      func(path string) error { return root.GenBashCompletionFileV2(path, true) },
		"_spacehost":     root.GenZshCompletionFile,
		"spacehost.fish": func(path string) error { return root.GenFishCompletionFile(path, true) },
	} {
		if err := write(filepath.Join(folder, name)); err != nil {
			return fmt.Errorf("write completion %s: %w", name, err)
		}
	}
	return nil
}
