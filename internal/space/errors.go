package space

import (
	"errors"
	"fmt"
	"io/fs"
)

var errNotFolder = errors.New("not a folder")

// FolderError reports that a Space's folder, or its README.md, cannot be read.
type FolderError struct {
	Dir string
	Err error
}

func (e *FolderError) Error() string {
	switch {
	case errors.Is(e.Err, fs.ErrNotExist):
		return fmt.Sprintf("folder %s does not exist; pass the folder that contains the Space's app.py", e.Dir)
	case errors.Is(e.Err, errNotFolder):
		return fmt.Sprintf("%s is not a folder; pass the folder that contains the Space's app.py", e.Dir)
	}
	return fmt.Sprintf("the Space in %s cannot be read: %v; check the permissions of the folder", e.Dir, e.Err)
}

func (e *FolderError) Unwrap() error { return e.Err }

// ConfigError reports an error in README.md's front matter: its line, the problem, and what to write instead. The Hub
// reports only its stage CONFIG_ERROR, without a reason.
type ConfigError struct {
	Code    Code
	Key     string // empty if the error concerns no single key
	Line    int    // in README.md, from 1; 0 if the error concerns no line
	Problem string
	Next    string // the next step
	Own     bool   // a limit of spacehost: the Hub accepts the value
}

func (e *ConfigError) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("%s; %s", e.Problem, e.Next)
	}
	return fmt.Sprintf("README.md line %d: %s; %s", e.Line, e.Problem, e.Next)
}

// AppFileError reports that the app file does not exist or is outside of the Space.
type AppFileError struct {
	Dir     string
	AppFile string
	Line    int  // of app_file in README.md; 0 for the default
	Outside bool // the file exists, but outside of Dir
}

func (e *AppFileError) Error() string { return e.problem(e.Dir) + "; " + e.next() }

// problem states the error about the folder that dir names.
func (e *AppFileError) problem(dir string) string {
	switch {
	case e.Outside && e.Line == 0:
		return fmt.Sprintf("%s is a link to a file outside of %s", e.AppFile, dir)
	case e.Outside:
		return fmt.Sprintf("app_file %q is outside of %s", e.AppFile, dir)
	case e.Line == 0:
		return fmt.Sprintf("file %s does not exist in %s", e.AppFile, dir)
	}
	return fmt.Sprintf("app_file %q does not exist in %s", e.AppFile, dir)
}

func (e *AppFileError) next() string {
	switch {
	case e.Outside && e.Line == 0:
		return "replace the link with the file"
	case e.Outside:
		return fmt.Sprintf("name a file inside it in README.md (line %d)", e.Line)
	case e.Line == 0:
		return "create it, or set app_file in README.md to the file to run"
	}
	return fmt.Sprintf("create it, or correct app_file in README.md (line %d)", e.Line)
}

// StageOf returns the Hub's stage for an error of Open.
func StageOf(err error) Stage {
	if _, ok := errors.AsType[*AppFileError](err); ok {
		return NoAppFile
	}
	return ConfigFailed
}
