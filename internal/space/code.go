package space

// Code identifies the kind of a Finding, whatever its words. Package check maps each to a rule.
type Code string

// The kinds of findings.
const (
	NoFrontMatter   Code = "no-front-matter" // no README.md, or none with front matter
	NotEnclosed     Code = "not-enclosed"    // keys at the top of README.md, without lines of ---
	BadSyntax       Code = "syntax"          // not YAML, not closed, a duplicate key, not UTF-8
	BadSDK          Code = "sdk"             // no sdk, or another than gradio
	BadVersion      Code = "sdk-version"     // not a release of Gradio that ZeroGPU runs
	OldVersion      Code = "old-gradio"      // older than ZeroGPU supports
	UnquotedVersion Code = "unquoted-sdk-version"
	UnquotedPython  Code = "unquoted-python-version"
	NoVersion       Code = "no-sdk-version"    // each build takes the newest Gradio
	BadPython       Code = "python-version"    // not a version of Python, or one that YAML changes
	OtherPython     Code = "python-on-zerogpu" // none of ZeroGPU's versions, or left to each machine
	BadAppFile      Code = "app-file"
	RefusedValue    Code = "refused"      // the Hub refuses the push
	UnknownKey      Code = "unknown"      // a key that has no effect
	IgnoredValue    Code = "ignored"      // a value that has no effect
	BadPreload      Code = "preload"      // the build fails
	TorchExcluded   Code = "torch"        // no torch of ZeroGPU fits
	GradioPinned    Code = "gradio"       // another Gradio than sdk_version
	PackagePinned   Code = "packages"     // a package that the Hub installs itself
	DebianPackages  Code = "packages.txt" // packages that the Hub installs and spacehost does not
	CannotRead      Code = "unreadable"
)
