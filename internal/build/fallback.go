package build

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"

	"spacehost/internal/lazyregexp"
)

// The Hub installs requirement files with pip. uv refuses some lines that pip accepts, and ignores some options. Such a
// file is installed by the environment's own pip, more slowly. docs/design/0020-requirement-files.md lists the forms
// that were tried with uv 0.13.8 and pip 26.3.

// ignoredByUV are options that change the result of pip and that uv ignores with a warning. uv ignores --use-feature
// too, which changes no result.
var ignoredByUV = lazyregexp.New(`(?m)^[ \t]*(--pre|--prefer-binary|--trusted-host)\b`)

// refusedByUV are the beginnings of uv's errors about the form of a line. pip decides whether the line is valid.
var refusedByUV = lazyregexp.New("(?m)^error: (?:Unsupported editable requirement|Couldn't parse requirement|Expected |Unexpected |Multiple `|Invalid URL in |Error parsing included file)")

// extraSource matches the indexes and pages that pip skips when they cannot be reached.
var extraSource = lazyregexp.New(`(?m)^[ \t]*(?:--extra-index-url|--find-links|-f)[ \t=]*(\S+)`)

// installFile installs a requirements file and further packages.
func (j *job) installFile(ctx context.Context, name string, further ...string) error {
	what := append([]string{"-r", name}, further...)
	if !j.tool.uv {
		return j.installWith(ctx, j.tool, what...)
	}
	if option := j.inputs.ignoredOption(); option != "" {
		fmt.Fprintf(j.output, "uv ignores %s, continuing with pip\n", option)
		return j.installWith(ctx, pipInstaller(), what...)
	}
	err := j.installWith(ctx, j.tool, what...)
	if reason, ok := j.inputs.pipAccepts(err); ok && ctx.Err() == nil {
		fmt.Fprintf(j.output, "uv %s, continuing with pip\n", reason)
		return j.installWith(ctx, pipInstaller(), what...)
	}
	return err
}

// ignoredOption returns an option of the requirement files that uv would ignore, or "".
func (in inputs) ignoredOption() string {
	for _, text := range in.Files {
		if found := ignoredByUV.FindStringSubmatch(text); found != nil {
			return found[1]
		}
	}
	return ""
}

// pipAccepts reports whether pip may install what uv failed to install: uv refuses the form of a line, or an extra
// index cannot be reached.
func (in inputs) pipAccepts(err error) (reason string, ok bool) {
	tool, failed := errors.AsType[*toolError](err)
	if !failed {
		return "", false
	}
	if refusedByUV.MatchString(tool.output) {
		return "refuses the form of a line", true
	}
	f := failure{flat: flatten(tool.output)}
	m, ok := f.match(append(statusOf[:1:1], unreachableHost[0])...)
	if !ok {
		return "", false
	}
	host := hostOf(m[len(m)-1])
	if slices.Contains(in.extraHosts(), host) {
		return "cannot reach the extra index " + host, true
	}
	return "", false
}

func (in inputs) extraHosts() []string {
	var all []string
	for _, text := range in.Files {
		for _, found := range extraSource.FindAllStringSubmatch(text, -1) {
			if u, err := url.Parse(found[1]); err == nil && u.Host != "" {
				all = append(all, u.Host)
			}
		}
	}
	return all
}
