package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"spacehost/internal/lazyregexp"
	"spacehost/quota"
)

// isTierFile reports whether text is the path of a file of tiers, not the name of a preset.
func isTierFile(text string) bool {
	return strings.ContainsRune(text, filepath.Separator) || strings.HasSuffix(text, ".yaml") || strings.HasSuffix(text, ".yml")
}

// ReadTiers returns the tiers of a preset or of a file. Errors: *FileError for mistakes in the file.
func ReadTiers(text string) (quota.Tiers, error) {
	if !isTierFile(text) {
		tiers, err := quota.Presets(text)
		if err != nil {
			err = fmt.Errorf("%w; for a file of tiers, give a path that contains / or ends in .yaml or .yml", err)
		}
		return tiers, err
	}
	d := &document{file: text}
	at := node{doc: d, line: 1}
	data, err := readSmall(text, maxConfig)
	if err != nil {
		at.fail("cannot read the file: %v; correct the path or the file", WithoutPath(err))
		return quota.Tiers{}, d.err()
	}
	root, ok := d.parseYAML(data)
	if !ok {
		return quota.Tiers{}, d.err()
	}
	base, own := DefaultPreset, []quota.Tier{}
	root.fields("a mapping with the keys base and tiers", map[string]func(node){
		"base": func(n node) {
			if text, ok := n.scalar(); ok {
				base = text
				if _, err := quota.Presets(text); err != nil {
					n.fail("%v", err)
				}
			}
		},
		"tiers": func(n node) { own = n.tiers() },
	})
	if len(own) == 0 && len(d.problems) == 0 {
		root.fail("no tiers are defined; add at least one under `tiers`")
	}
	if err := d.err(); err != nil {
		return quota.Tiers{}, err
	}
	tiers, err := quota.Presets(base)
	tiers = tiers.With(own...)
	tiers.Preset = text
	return tiers, err
}

// maxPriority bounds a tier's priority.
const maxPriority = 100

var tierRule = lazyregexp.New(`^[a-z0-9][a-z0-9_-]{0,31}$`)

// tiers reads a mapping of tiers by name.
func (n node) tiers() (all []quota.Tier) {
	n.mapping("a mapping of tiers", func(name string, at node) {
		switch {
		case name == "unlimited":
			at.fail("the tier \"unlimited\" is predefined; choose another name")
		case !tierRule.MatchString(name):
			at.fail("invalid tier name; use 1 to 32 of a-z, 0-9, '_' and '-', beginning with a letter or a digit")
		default:
			if tier, ok := at.tier(name); ok {
				all = append(all, tier)
			}
		}
	})
	return all
}

// tier reads one tier. If the newest preset has a tier of that name, its priority and its Authenticated value are the
// defaults: callers of "unauthenticated" count as not signed in, and messages suggest no subscription to "pro" users.
func (n node) tier(name string) (tier quota.Tier, ok bool) {
	tier = quota.Tier{Name: name, Authenticated: "regular", Priority: 1}
	if known, err := newest.Get(name); err == nil {
		tier.Authenticated, tier.Priority = known.Authenticated, known.Priority
	}
	var longest, quotaAt *node
	mistakes := len(n.doc.problems)
	n.fields("a mapping that describes a tier (quota, longest, runs, unlimited, priority, concurrency)", map[string]func(node){
		"quota":       func(at node) { quotaAt = &at; set(&tier.Quota)(at.duration(time.Second, quota.MostGrant)) },
		"longest":     func(at node) { longest = &at; set(&tier.Longest)(at.duration(time.Second, quota.MostGrant)) },
		"runs":        func(at node) { set(&tier.Runs)(at.number(0, quota.MostRuns)) },
		"unlimited":   func(at node) { set(&tier.Unlimited)(at.boolean()) },
		"priority":    func(at node) { set(&tier.Priority)(at.number(0, maxPriority)) },
		"concurrency": func(at node) { set(&tier.Concurrency)(at.number(0, maxConcurrency)) },
	})
	switch {
	case len(n.doc.problems) > mistakes: // the checks below would only report their consequences
	case tier.Unlimited && (quotaAt != nil || longest != nil):
		n.fail("an unlimited tier has neither quota nor longest; remove them, or remove `unlimited`")
	case !tier.Unlimited && quotaAt == nil:
		n.fail("has no `quota`; set the seconds of GPU time per 24 hours, or `unlimited: true`")
	case longest != nil && tier.Longest > tier.Quota:
		longest.fail("%s exceeds the tier's quota of %s; lower `longest` or raise `quota`", tier.Longest, tier.Quota)
	}
	return tier, len(n.doc.problems) == mistakes
}

// DefaultPreset is the preset of a host, and of a file of tiers, that names none.
const DefaultPreset = quota.NewestPreset

// newest is the preset that has every tier name that upstream has used.
var newest, _ = quota.Presets(DefaultPreset)

// CheckTiers checks --quota, and --tier against its tiers. Mistakes in a file of tiers are returned as *FileError.
func CheckTiers(text, tier string) error {
	tiers, err := ReadTiers(text)
	var wrong *FileError
	switch {
	case errors.As(err, &wrong):
		return err
	case err != nil:
		return fmt.Errorf("--quota: %w", err)
	}
	if _, err := tiers.Get(tier); err != nil {
		return fmt.Errorf("--tier: %w", err)
	}
	return nil
}
