package config

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// DefaultDrain is the default duration of a GPU function (spaces/zero/decorator.py).
const DefaultDrain = 60 * time.Second

const (
	// DefaultKeep is longer than users dispute a charge.
	DefaultKeep = 90 * 24 * time.Hour
	// minKeep is one day, the length of a quota window.
	minKeep = 24 * time.Hour
	maxKeep = 100 * 365 * 24 * time.Hour
)

// parseKeep parses a retention time: 90d, 720h or forever. It returns 0 for forever.
func parseKeep(text string) (time.Duration, error) {
	if text == "forever" || text == "0" {
		return 0, nil
	}
	d, err := ParseSpan(text)
	if err != nil || d < minKeep || d > maxKeep {
		return 0, fmt.Errorf("must be from 1d to %dd, such as 90d, or forever, not %.40q", maxKeep/minKeep, text)
	}
	return d, nil
}

// ParseSpan parses a duration in Go's notation, or a number of days, such as 30d.
func ParseSpan(text string) (time.Duration, error) {
	number, inDays := strings.CutSuffix(text, "d")
	if !inDays {
		return time.ParseDuration(text)
	}
	days, err := strconv.Atoi(number)
	return time.Duration(min(max(days, 0), 1e5)) * 24 * time.Hour, err
}

// minUploadKeep is longer than a visitor needs between an upload and its call.
const minUploadKeep = 10 * time.Minute

func parseUploadKeep(text string, into *time.Duration) error {
	if text == "forever" {
		*into = Forever
		return nil
	}
	keep, err := ParseSpan(text)
	if err != nil || keep < minUploadKeep || keep > maxKeep {
		return fmt.Errorf("must be from %s to %dd, such as 24h or 7d, or forever, not %.40q", durationText(minUploadKeep), maxKeep/minKeep, text)
	}
	*into = keep
	return nil
}

// uploadKeepText returns a value of upload_keep as the file has it.
func uploadKeepText(d time.Duration) string {
	if d == Forever {
		return "forever"
	}
	return keepText(d)
}

func (n node) keep() (time.Duration, bool) {
	text, ok := n.scalar()
	if !ok {
		return 0, false
	}
	d, err := parseKeep(text)
	if err != nil {
		n.fail("%v", err)
	}
	return d, err == nil
}
