package space

import (
	"errors"
	"fmt"
	"io/fs"
)

var errNotFolder = errors.New("not a folder")

// FolderError says that a Space's folder, or the README.md in it, cannot be read.
type FolderError struct {
	Dir string
	Err error
}

func (e *FolderError) Error() string {
	switch {
	case errors.Is(e.Err, fs.ErrNotExist):
		return fmt.Sprintf("the folder %s does not exist; give the folder that holds the Space's app.py", e.Dir)
	case errors.Is(e.Err, errNotFolder):
		return fmt.Sprintf("%s is not a folder; give the folder that holds the Space's app.py", e.Dir)
	}
	return fmt.Sprintf("the Space in %s cannot be read; check its permissions: %v", e.Dir, e.Err)
}

func (e *FolderError) Unwrap() error { return e.Err }

// ConfigError says what is wrong in README.md's front matter, where, and what to write instead.
// The Hub answers the same with its stage CONFIG_ERROR and no word of why.
type ConfigError struct {
	Key     string // empty when it is not about one key
	Line    int    // in README.md, from 1; 0 when it is about no line
	Problem string
	Next    string // the next step
}

func (e *ConfigError) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("%s; %s", e.Problem, e.Next)
	}
	return fmt.Sprintf("README.md line %d: %s; %s", e.Line, e.Problem, e.Next)
}

// AppFileError says that the file to run is not there, or is not the Space's.
type AppFileError struct {
	Dir     string
	AppFile string
	Line    int  // of app_file in README.md; 0 where the default was taken
	Outside bool // it is there, but outside of Dir
}

func (e *AppFileError) Error() string {
	switch {
	case e.Outside && e.Line == 0:
		return fmt.Sprintf("%s is a link that leads out of %s; put the file itself there", e.AppFile, e.Dir)
	case e.Outside:
		return fmt.Sprintf("app_file %q lies outside of %s; name a file inside it in README.md (line %d)", e.AppFile, e.Dir, e.Line)
	case e.Line == 0:
		return fmt.Sprintf("there is no file %s in %s; create it, or name the file to run by app_file in README.md", e.AppFile, e.Dir)
	}
	return fmt.Sprintf("app_file %q does not exist in %s; create it or correct app_file in README.md (line %d)", e.AppFile, e.Dir, e.Line)
}

// StageOf tells which stage an error of Open is on the Hub.
func StageOf(err error) Stage {
	if _, ok := errors.AsType[*AppFileError](err); ok {
		return NoAppFile
	}
	return ConfigFailed
}
