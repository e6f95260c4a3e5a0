package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"spacehost/quota"
)

// isTierFile tells a file of tiers from the name of a preset.
func isTierFile(text string) bool {
	return strings.ContainsRune(text, filepath.Separator) || strings.HasSuffix(text, ".yaml") || strings.HasSuffix(text, ".yml")
}

// ReadTiers returns the tiers of a preset or of a file. Errors: *FileError for what is wrong in the file.
func ReadTiers(text string) (quota.Tiers, error) {
	if !isTierFile(text) {
		tiers, err := quota.Presets(text)
		if err != nil {
			err = fmt.Errorf("%w; a file of tiers has a name with a / or .yaml in it", err)
		}
		return tiers, err
	}
	r := &reader{file: text}
	at := value{r: r, line: 1}
	data, err := readSmall(text, maxConfig)
	if err != nil {
		at.fail("cannot be read: %v", WithoutPath(err))
		return quota.Tiers{}, r.err()
	}
	root, ok := r.parseYAML(data)
	if !ok {
		return quota.Tiers{}, r.err()
	}
	base, own := "2026-04", []quota.Tier{}
	root.fields("a file of tiers: base, tiers", map[string]func(value){
		"base": func(v value) {
			if text, ok := v.plain(); ok {
				base = text
				if _, err := quota.Presets(text); err != nil {
					v.fail("%v", err)
				}
			}
		},
		"tiers": func(v value) { own = v.tiers() },
	})
	if len(own) == 0 && len(r.problems) == 0 {
		root.fail("there are no tiers: `tiers` needs one at least")
	}
	if err := r.err(); err != nil {
		return quota.Tiers{}, err
	}
	tiers, err := quota.Presets(base)
	tiers = tiers.With(own...)
	tiers.Preset = text
	return tiers, err
}

// maxRank bounds a priority.
const maxRank = 100

var tierRule = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,31}$`)

// tiers are those of a mapping, by name.
func (v value) tiers() (all []quota.Tier) {
	v.table("a mapping of tiers", func(name string, at value) {
		switch {
		case name == "unlimited":
			at.fail("the tier \"unlimited\" is always there: give yours another name")
		case !tierRule.MatchString(name):
			at.fail("a tier's name is 1 to 32 of a-z, 0-9, '_' and '-', beginning with a letter or a digit")
		default:
			if tier, ok := at.tier(name); ok {
				all = append(all, tier)
			}
		}
	})
	return all
}

// tier begins with the rank and the words of the preset's of that name: whom "unauthenticated" means is not signed in, and
// a "pro" is not told to subscribe.
func (v value) tier(name string) (tier quota.Tier, ok bool) {
	tier = quota.Tier{Name: name, Authenticated: "regular", Priority: 1}
	if known, err := newest.Get(name); err == nil {
		tier.Authenticated, tier.Priority = known.Authenticated, known.Priority
	}
	var longest, quotaAt *value
	mistakes := len(v.r.problems)
	v.fields("a tier: quota, longest, unlimited, priority, concurrency", map[string]func(value){
		"quota":       func(at value) { quotaAt = &at; set(&tier.Quota)(at.span(time.Second, quota.MostGrant)) },
		"longest":     func(at value) { longest = &at; set(&tier.Longest)(at.span(time.Second, quota.MostGrant)) },
		"unlimited":   func(at value) { set(&tier.Unlimited)(at.flag()) },
		"priority":    func(at value) { set(&tier.Priority)(at.number(0, maxRank)) },
		"concurrency": func(at value) { set(&tier.Concurrency)(at.number(0, mostAtOnce)) },
	})
	switch {
	case len(v.r.problems) > mistakes: // more would only follow from them
	case tier.Unlimited && (quotaAt != nil || longest != nil):
		v.fail("an unlimited tier has neither quota nor longest: remove them, or `unlimited`")
	case !tier.Unlimited && quotaAt == nil:
		v.fail("says no `quota`: the seconds of GPU time in 24 hours, or `unlimited: true`")
	case longest != nil && tier.Longest > tier.Quota:
		longest.fail("%s is longer than the whole quota of %s", tier.Longest, tier.Quota)
	}
	return tier, len(v.r.problems) == mistakes
}

// newest is the preset that has every name which upstream has used.
var newest, _ = quota.Presets("2026-08")

// CheckTiers says in one line what is wrong with --quota, and with --tier, which is one of its.
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
