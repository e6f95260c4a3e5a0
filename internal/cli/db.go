package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"spacehost/internal/config"
	"spacehost/internal/host"
	"spacehost/internal/usage"
	"spacehost/migrations"
)

func newDB() *cobra.Command {
	c := usage.Group(&cobra.Command{
		Use: "db", Short: "Check, back up or restore the database of a state folder",
		Long: `The database (spacehost.db) holds people, tokens, leases and the ledger of GPU seconds. Use only these commands on it:
a copy of the file alone lacks the write-ahead log, and an older SQLite can damage it.`,
		Example: `  spacehost db backup /backup/monday.db      while the host runs or not
  spacehost db check /backup/monday.db
  spacehost db restore /backup/monday.db     with the host stopped`,
	})
	c.AddCommand(newDBCheck(), newDBBackup(), newDBRestore())
	return c
}

// copied is the answer of backup and restore with --json.
type copied struct {
	Database string `json:"database"`
	Backup   string `json:"backup"`
	Kept     string `json:"kept,omitempty"` // file to which restore moved the previous database
}

func newDBCheck() *cobra.Command {
	var folder string
	var asJSON bool
	c := &cobra.Command{
		Use: "check [FILE]", Short: "Verify the whole database, or a backup",
		Long: `Read every page and index of the state folder's database, or of FILE, and add up the ledger. The host may run
meanwhile. Exit codes: 0 the database is intact, 1 it is damaged or cannot be read, 2 wrong usage.`,
		Args: usage.Args(cobra.MaximumNArgs(1)),
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
			return errors.Join(printJSON(c, found), err)
		}
		if err != nil {
			return err
		}
		return printf(c, "%s is intact (%.1f s)", path, time.Since(began).Seconds())
	}
	return c
}

func newDBBackup() *cobra.Command {
	var folder string
	var asJSON bool
	c := &cobra.Command{
		Use: "backup FILE", Short: "Copy the database to FILE; the host may run",
		Long: `Copy a consistent snapshot of the state folder's database to FILE, which must not exist yet. The host may run and keeps
lending GPUs meanwhile. FILE holds names and token hashes, so only its owner can read it.`,
		Args: usage.Args(cobra.ExactArgs(1)),
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
			return printJSON(c, copied{Database: path, Backup: args[0]})
		}
		return printf(c, "%s is backed up in %s", path, args[0])
	}
	return c
}

func newDBRestore() *cobra.Command {
	var folder string
	var asJSON bool
	c := &cobra.Command{
		Use: "restore FILE", Short: "Replace the database by a backup; the host must not run",
		Long: `Verify the backup FILE, and replace the state folder's database by a copy of it. The previous database is kept beside it
under another name. Charges since the backup are lost, and tokens revoked since are valid again. Stop the host first;
its next start migrates an older backup.`,
		Args: usage.Args(cobra.ExactArgs(1)),
	}
	addDBFlags(c, &folder, &asJSON)
	c.RunE = func(c *cobra.Command, args []string) error {
		path, err := database(folder)
		if err != nil {
			return err
		}
		if _, err := os.Stat(args[0]); err != nil { // checked before a state folder is created
			return fmt.Errorf("read the backup %s: %w; name a file that `spacehost db backup` has written", args[0], config.WithoutPath(err))
		}
		held, err := host.OpenState(filepath.Dir(path)) // no host can start while this command holds the lock
		if err != nil {
			return err
		}
		defer held.Close()
		kept, err := migrations.Restore(c.Context(), args[0], path)
		if err != nil {
			return err
		}
		if asJSON {
			return printJSON(c, copied{path, args[0], kept})
		}
		if kept != "" {
			if err := printf(c, "The previous database is kept as %s", kept); err != nil {
				return err
			}
		}
		return printf(c, "%s is restored from %s; start the host", path, args[0])
	}
	return c
}

func addDBFlags(c *cobra.Command, folder *string, asJSON *bool) {
	c.Flags().BoolVar(asJSON, "json", false, "print the answer as JSON")
	addState(c, folder)
}

// database returns the path of the database of a state folder.
func database(folder string) (string, error) {
	dir, err := config.StateFolder(folder)
	return filepath.Join(dir, "spacehost.db"), err
}
