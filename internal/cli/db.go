package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"spacehost/internal/config"
	"spacehost/internal/host"
	"spacehost/migrations"
)

func newDB() *cobra.Command {
	c := family(&cobra.Command{
		Use: "db", Short: "The database of a state folder: check it, back it up, restore it",
		Long: `The database (spacehost.db) holds people, tokens, leases and the ledger of GPU seconds. Open it with these
commands and no other program: a copy of the file alone lacks what is still in its log, and an older SQLite can
damage it.`,
		Example: `  spacehost db backup /backup/monday.db      also while the host runs
  spacehost db check /backup/monday.db
  spacehost db restore /backup/monday.db     with the host stopped`,
	})
	c.AddCommand(newDBCheck(), newDBBackup(), newDBRestore())
	return c
}

// copied is what backup and restore print with --json.
type copied struct {
	Database string `json:"database"`
	Backup   string `json:"backup"`
	Kept     string `json:"kept,omitempty"` // as which restore has kept what was there
}

func newDBCheck() *cobra.Command {
	var folder string
	var asJSON bool
	c := &cobra.Command{
		Use: "check [FILE]", Short: "Read the whole database, or a backup, and say whether it is whole",
		Long: `Read every page and index of the state folder's database, or of FILE, and add up the ledger. A host may run
meanwhile. Exit codes: 0 it is whole, 1 it is damaged or cannot be read, 2 wrong usage.`,
		Args: usage(cobra.MaximumNArgs(1)),
	}
	addDBFlags(c, &folder, &asJSON)
	c.RunE = func(c *cobra.Command, args []string) error {
		path, err := database(folder)
		if len(args) > 0 {
			path, err = filepath.Abs(args[0])
		}
		if err != nil {
			return err
		}
		began := time.Now()
		err = migrations.Check(c.Context(), path)
		if asJSON {
			found := struct {
				Database string `json:"database"`
				OK       bool   `json:"ok"`
				Error    string `json:"error,omitempty"`
			}{Database: path, OK: err == nil}
			if err != nil {
				found.Error = err.Error()
			}
			return errors.Join(sayJSON(c, found), err)
		}
		if err != nil {
			return err
		}
		return say(c, "%s is whole (%.1f s)", path, time.Since(began).Seconds())
	}
	return c
}

func newDBBackup() *cobra.Command {
	var folder string
	var asJSON bool
	c := &cobra.Command{
		Use: "backup FILE", Short: "Write a copy of the database to FILE, also while the host runs",
		Long: `Write a copy of the state folder's database, as it is at one moment, to FILE, which must not exist yet. The host
may run, and goes on lending GPUs meanwhile. FILE holds names and token hashes: it is made readable by you alone.`,
		Args: usage(cobra.ExactArgs(1)),
	}
	addDBFlags(c, &folder, &asJSON)
	c.RunE = func(c *cobra.Command, args []string) error {
		path, err := database(folder)
		if err != nil {
			return err
		}
		if err := migrations.Backup(c.Context(), path, args[0]); err != nil {
			return err
		}
		if asJSON {
			return sayJSON(c, copied{Database: path, Backup: args[0]})
		}
		return say(c, "%s is backed up in %s", path, args[0])
	}
	return c
}

func newDBRestore() *cobra.Command {
	var folder string
	var asJSON bool
	c := &cobra.Command{
		Use: "restore FILE", Short: "Put a backup in the place of the database; the host must not run",
		Long: `Check the backup FILE, and put a copy of it in the place of the state folder's database. What was there is kept
beside it under another name. What was charged since the backup is forgotten, tokens that were revoked since are good
again. Stop the host first; its next start brings an older backup up to date.`,
		Args: usage(cobra.ExactArgs(1)),
	}
	addDBFlags(c, &folder, &asJSON)
	c.RunE = func(c *cobra.Command, args []string) error {
		path, err := database(folder)
		if err != nil {
			return err
		}
		if _, err := os.Stat(args[0]); err != nil { // before a state folder is made
			return fmt.Errorf("the backup %s cannot be read: %w; name a file that `spacehost db backup` has written", args[0], config.WithoutPath(err))
		}
		held, err := host.OpenState(filepath.Dir(path)) // while we have it, no host starts
		if err != nil {
			return err
		}
		defer held.Close()
		kept, err := migrations.Restore(c.Context(), args[0], path)
		if err != nil {
			return err
		}
		if asJSON {
			return sayJSON(c, copied{path, args[0], kept})
		}
		if kept != "" {
			if err := say(c, "what was there is kept as %s", kept); err != nil {
				return err
			}
		}
		return say(c, "%s is what %s was; start the host", path, args[0])
	}
	return c
}

func addDBFlags(c *cobra.Command, folder *string, asJSON *bool) {
	c.Flags().BoolVar(asJSON, "json", false, "print the answer as JSON")
	addState(c, folder)
}

func sayJSON(c *cobra.Command, answer any) error {
	text, _ := json.Marshal(answer) // plain strings
	return say(c, "%s", text)
}

// database is the file of a state folder.
func database(folder string) (string, error) {
	dir, err := config.StateFolder(folder)
	return filepath.Join(dir, "spacehost.db"), err
}
