// Package config turns command-line flags and the configuration file of `spacehost serve` into Settings.
//
// # Terms
//
// Settings describe one host: its Spaces, addresses, GPUs, tiers and people. A Setting is a value together with the flag
// or the key that it came from, so that a later error can name the place to change. A document is a YAML file. A node is
// one value in it, with its path and line. A Problem is one mistake, at a line and key.
//
// # Types
//
// Load reads a file: a loader first reads all keys (file.go, gpus.go, spaces.go, people.go), then checks references
// between them (crosscheck.go, isolation_keys.go). internal/cli calls Load for `serve` and builds Settings from flags for `run`.
// internal/host runs a host from Settings. ReadTiers reads a preset or a file of tiers. The functions of address.go
// check addresses and host names for both sources.
//
// SpaceSettings contain IsolationSettings, the level of isolation of one Space with its egress, limits and mounts.
// isolation.go, egress.go, limits.go, mounts.go and uids.go have one parser per type, for flags and files alike. A Place is
// the flag or the key of such a value; Place.Mistake reports a value that the machine cannot put in force.
//
// To add a key, add:
//   - a field to Settings or SpaceSettings;
//   - a row to the map in loader.top (file.go), loader.gpus (gpus.go), loader.space (spaces.go), loader.person
//     (people.go), or isolationEntry.commonKeys or spaceKeys (isolation_keys.go);
//   - a row to the table of mistakes in file_test.go;
//   - a paragraph to docs/operator-guide.md.
//
// # Failure handling
//
// Load collects every mistake of a file and returns them together as a *FileError, sorted by line. A value with a mistake
// keeps its default; an invalid visibility counts as private. For a file that is not valid YAML, the
// syntax error is the only Problem. Warnings do not prevent a start.
package config
