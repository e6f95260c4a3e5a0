package checkcli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/spf13/cobra"

	"spacehost/gpu"
	"spacehost/internal/check"
	"spacehost/internal/fetchspace"
	"spacehost/internal/usage"
	"spacehost/quota"
)

// options are the flags of `spacehost check`.
type options struct {
	config Config
	dirs   []string // as given
	dir    string   // the one that is checked now

	run, call bool
	state     string
	python    string
	tier      string
	quota     string
	tiers     quota.Tiers
	hardware  string
	gradio    []string
	duplicate bool
	writeLock string
	like      string

	hardwareGiven bool
	variables     []string // of a duplicate

	format        string
	failOn        string
	selected      []string
	ignored       []string
	baseline      string
	writeBaseline string
	filter        check.Filter
}

func newCheck(config Config) *cobra.Command {
	o := options{config: config}
	c := &cobra.Command{
		Use:   "check [DIR|SPACE]...",
		Short: "Find what would fail on ZeroGPU in the Space in DIR (default: the current folder)",
		Long: `Find what would fail on ZeroGPU in the Space in DIR: README.md, requirements.txt, and the Python of the app and of its own
modules. No code of the Space runs, and nothing is downloaded.

Several folders are several Spaces. Their findings are one report, in which files have the path from the working folder.

Instead of a folder, SPACE names a Space of the Hub, as owner/space or by its address, or the URL of a git repository. git
clones it first; HF_TOKEN gives access to private Spaces.

A line begins with the place, the severity and the rule: error (fails on ZeroGPU), warning (may fail, or differs from what
the author expects) or info (fails only with --fail-on info). "spacehost explain-rule ID" explains a rule. The last lines name what was
and what was not looked at.

A comment excludes findings of its line, or of the next line if it stands alone: # spacehost: ignore[F308]

The Python is parsed by the interpreter of --python, else of the Space's environment if it has been built, else by python3 of
the PATH. It must be 3.9 or newer, and needs no packages. docs/check.md has more about stages, baselines and CI.

Exit codes: 0 no finding at or above --fail-on, 2 wrong usage, 3 the Space's README.md or app_file is wrong (CONFIG_ERROR,
NO_APP_FILE), 7 findings.`,
		Example: `  spacehost check                                  the Space in this folder
  spacehost check --quota 2026-04 --hardware h200 .   with ZeroGPU's numbers and hardware of April 2026
  spacehost check --format sarif . > check.sarif   for code scanning on GitHub
  spacehost check --select F,G3 --ignore G314 .    only some rules
  spacehost check --write-baseline .spacehost-baseline.json .   accept what is there
  spacehost check --baseline .spacehost-baseline.json .         and fail on what is new`,
		Args: cobra.ArbitraryArgs,
	}
	o.flags(c)
	if config.Stages != nil {
		c.Long = strings.Replace(c.Long, "7 findings.", "4 --run: its environment could\nnot be built (BUILD_ERROR), 5 --run: its app ended before it answered (RUNTIME_ERROR), 7 findings.", 1)
	}
	c.Args = usage.Args(c.Args)
	c.RunE = func(c *cobra.Command, args []string) error {
		if o.dirs = slices.Clone(args); len(args) == 0 {
			o.dirs = []string{"."}
		}
		o.hardwareGiven = c.Flags().Changed("hardware")
		if err := o.check(); err != nil {
			return usage.Wrap(c, err)
		}
		for i := range o.dirs {
			if err := o.fetch(c, &o.dirs[i]); err != nil {
				return err
			}
		}
		o.dir = o.dirs[0]
		return o.execute(c)
	}
	return c
}

func (o *options) flags(c *cobra.Command) {
	f := c.Flags()
	f.SortFlags = false
	f.StringVar(&o.format, "format", "text", "output on stdout: "+strings.Join(check.Formats, ", "))
	f.StringVar(&o.failOn, "fail-on", string(check.Error), "lowest severity that fails the check: error, warning, info, or never")
	f.StringSliceVar(&o.selected, "select", nil, "rules to report, as identifiers or prefixes such as F or F3 (default: all); may be repeated")
	f.StringSliceVar(&o.ignored, "ignore", nil, "rules to leave out, as identifiers or prefixes; may be repeated")
	f.StringVar(&o.baseline, "baseline", "", "file of accepted findings, which are left out")
	f.StringVar(&o.writeBaseline, "write-baseline", "", "file to write with the present findings as accepted; the check then passes")
	f.StringVar(&o.tier, "tier", "free", "tier of the visitors whose refusals count: unauthenticated, free, pro ... or unlimited")
	f.StringVar(&o.quota, "quota", quota.NewestPreset, "preset of tiers: 2026-04, 2026-08 or 2026-10, with Hugging Face's numbers of that month")
	f.StringVar(&o.hardware, "hardware", gpu.AutoHardware, "GPU of ZeroGPU: h200, rtx-pro-6000 (charges 1.5 x the seconds), or auto for the newest")
	f.StringVar(&o.python, "python", "", "Python interpreter that parses the Space's Python (default: python3 of the PATH)")
	if o.config.Environment != nil {
		f.StringVar(&o.state, "state", "", "folder for database, environments and logs (default $XDG_STATE_HOME/spacehost)")
	}
	if o.config.Stages != nil {
		f.BoolVar(&o.run, "run", false, "also build the Space, start it once on simulated GPUs, and stop it")
		f.BoolVar(&o.call, "call", false, "also call each named endpoint with its examples or defaults; includes --run")
		f.StringSliceVar(&o.gradio, "gradio", nil, "with --run or --call: versions of Gradio instead of sdk_version, such as 4.44.1,5.49.1,6.31.0; several end with a table")
		o.config.Stages.Flags(f)
	}
	f.BoolVar(&o.duplicate, "as-duplicate", false, "check what a duplicate of the Space has: no Secrets, and no GPU unless --hardware names one")
	if o.config.Pins != nil {
		f.StringVar(&o.writeLock, "write-lock", "", "file to write with the Python and the packages of the Space's environment")
		f.StringVar(&o.like, "like", "", "file of --write-lock, output of pip freeze, or build log of the Hub, whose packages the environment must have")
	}
	_ = c.RegisterFlagCompletionFunc("format", cobra.FixedCompletions(check.Formats, cobra.ShellCompDirectiveNoFileComp))
	_ = c.RegisterFlagCompletionFunc("fail-on", cobra.FixedCompletions([]string{"error", "warning", "info", "never"}, cobra.ShellCompDirectiveNoFileComp))
	for _, name := range []string{"select", "ignore"} {
		_ = c.RegisterFlagCompletionFunc(name, completeRules)
	}
}

const never = "never"

// check finds mistakes before anything is read.
func (o *options) check() (err error) {
	if !slices.Contains(check.Formats, o.format) {
		return fmt.Errorf("--format %.40q is unknown; use %s", o.format, strings.Join(check.Formats, ", "))
	}
	if !slices.Contains([]string{"error", "warning", "info", never}, o.failOn) {
		return fmt.Errorf("--fail-on %.40q is unknown; use error, warning, info or never", o.failOn)
	}
	if o.filter.Select, err = check.CheckIDs(o.selected); err != nil {
		return fmt.Errorf("--select: %w", err)
	}
	if o.filter.Ignore, err = check.CheckIDs(o.ignored); err != nil {
		return fmt.Errorf("--ignore: %w", err)
	}
	if o.baseline != "" && o.writeBaseline != "" {
		return errors.New("--baseline and --write-baseline exclude each other; give one")
	}
	if o.baseline != "" {
		if o.filter.Baseline, err = check.ReadBaseline(o.baseline); err != nil {
			return fmt.Errorf("--baseline: %w", err)
		}
	}
	if o.config.Stages != nil {
		if err := o.config.Stages.Check(); err != nil {
			return err
		}
	}
	if o.writeLock != "" && o.like != "" {
		return errors.New("--write-lock and --like exclude each other; give one")
	}
	if err := errors.Join(o.checkSeveral(), o.checkGradio(), o.checkDuplicate()); err != nil {
		return err
	}
	return o.checkTiers()
}

func (o *options) checkTiers() (err error) {
	read := o.config.ReadTiers
	if read == nil {
		read = quota.Presets
	}
	if o.tiers, err = read(o.quota); err != nil {
		return fmt.Errorf("--quota: %w", err)
	}
	if _, err := o.tiers.Get(o.tier); err != nil {
		return fmt.Errorf("--tier: %w", err)
	}
	if err := gpu.CheckHardware(o.hardware); err != nil {
		return fmt.Errorf("--hardware: %w", err)
	}
	return nil
}

// fetch names the folder of a Space, which it clones if it is one of the Hub.
func (o *options) fetch(c *cobra.Command, dir *string) error {
	clones := o.config.Clones
	if clones == nil {
		clones = cacheFolder
	}
	folder, err := clones(o.state)
	if err == nil {
		*dir, err = fetchspace.Resolve(c.Context(), *dir, folder, func(text string) { fmt.Fprintln(c.ErrOrStderr(), "note:", text) })
	}
	return err
}

// cacheFolder is the folder of clones on a system without a state folder.
func cacheFolder(string) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find a folder for the clone: %w", err)
	}
	return filepath.Join(cache, "spacehost", "clones"), nil
}

func (o *options) execute(c *cobra.Command) error {
	if len(o.gradio) > 1 {
		return o.eachGradio(c)
	}
	gradio := strings.Join(o.gradio, "") // one, or none
	if len(o.dirs) > 1 {
		return o.several(c, gradio)
	}
	_, err := o.once(c, gradio)
	return err
}

// once performs one check, with another Gradio than that of README.md unless gradio is empty. The report is nil if it was not
// printed.
func (o *options) once(c *cobra.Command, gradio string) (*check.Report, error) {
	began := time.Now()
	report, failed, err := o.examine(c, gradio)
	if err != nil {
		return nil, err
	}
	report.Skip(o.run || o.call, o.call, o.hint())
	if o.writeBaseline != "" {
		if err := check.WriteBaseline(o.writeBaseline, report); err != nil {
			return nil, fmt.Errorf("write the baseline: %w", err)
		}
		_, err := fmt.Fprintf(c.OutOrStdout(), "%s accepts %d findings.\n", o.writeBaseline, len(report.Findings))
		return report, cmp.Or(failed, err)
	}
	if err := o.write(c.OutOrStdout(), report, o.dir, time.Since(began)); err != nil {
		return nil, err
	}
	return report, cmp.Or(failed, o.lock(c, gradio), o.verdict(report))
}

// examine performs the stages, and applies the filter. failed is the error of a build or start, of which the report has what was
// found until then.
func (o *options) examine(c *cobra.Command, gradio string) (report *check.Report, failed, err error) {
	python, problem := o.interpreter(c.Context())
	reading := check.Options{Dir: o.dir, Python: python, NoPython: problem, Tiers: o.tiers, Tier: o.tier, Hardware: hardware(o.hardware)}
	if report, err = check.Read(c.Context(), reading); err != nil {
		return nil, nil, err
	}
	switch {
	case !o.run && !o.call:
	case report.Stop != nil:
		report.NotLookedAt = append(report.NotLookedAt, "its start, because `spacehost run` refuses the Space")
	default:
		failed = o.config.Stages.Run(c.Context(), o.dir, StageOptions{Call: o.call, State: o.state, Python: o.python, Quota: o.quota, Gradio: gradio, CPU: o.onCPU(), Limits: reading.Limits(),
			Hardware: o.hardware, Progress: c.ErrOrStderr()}, report)
		if c.Context().Err() != nil { // an interrupted check does not pass
			return nil, nil, cmp.Or(failed, context.Cause(c.Context()))
		}
	}
	if o.duplicate {
		o.asDuplicate(report)
	}
	o.filter.Dir = o.dir
	return report, failed, report.Apply(o.filter)
}

// hint names where the stages run and call exist.
func (o *options) hint() string {
	if o.config.Stages == nil {
		return ", on Linux"
	}
	return ""
}

// verdict returns a *FindingsError if the check fails.
func (o *options) verdict(report *check.Report) error {
	if o.failOn == never {
		return nil
	}
	count := report.AtLeast(check.Severity(o.failOn))
	switch {
	case report.Stop != nil:
		return &FindingsError{usage.ExitConfig, count}
	case count > 0:
		return &FindingsError{usage.ExitFindings, count}
	}
	return report.Unread // an incomplete check does not pass
}

// write writes a report about the Space in dir; several Spaces have the working folder.
func (o *options) write(w io.Writer, report *check.Report, dir string, took time.Duration) error {
	view := check.View{Version: o.config.Version, Took: took}
	view.Root, view.Base = place(dir)
	if o.format == "text" {
		report.Sanitize()
		if terminal := terminalOf(w); terminal != nil {
			w, view.Color = terminal, true // the escape sequences of colors would not pass the cleaning writer
		}
	}
	return report.Write(w, o.format, view)
}

// place returns the working folder, and the path from there to a folder, with slashes: "" for the working folder itself. A
// folder outside of it has its absolute path, if that is shorter.
func place(dir string) (root, base string) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", filepath.ToSlash(dir)
	}
	root, err = os.Getwd()
	if err != nil {
		return filepath.Dir(abs), filepath.Base(abs)
	}
	rel, err := filepath.Rel(root, abs)
	switch {
	case err != nil, strings.HasPrefix(rel, "..") && len(rel) > len(abs): // another drive, or far away
		rel = abs
	case rel == ".":
		rel = ""
	}
	return root, filepath.ToSlash(rel)
}

// terminalOf returns the terminal behind a writer that removes control characters, nil if there is none or if it should
// show no colors (no-color.org).
func terminalOf(w io.Writer) io.Writer {
	if cleaning, ok := w.(interface{ Unwrap() io.Writer }); ok {
		w = cleaning.Unwrap()
	}
	file, ok := w.(*os.File)
	if !ok || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" || runtime.GOOS == "windows" || !isatty.IsTerminal(file.Fd()) {
		return nil
	}
	return file
}
