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
	d, err := time.ParseDuration(text)
	if number, inDays := strings.CutSuffix(text, "d"); inDays {
		var days int
		days, err = strconv.Atoi(number)
		d = time.Duration(min(max(days, 0), 1e6)) * 24 * time.Hour
	}
	if err != nil || d < minKeep || d > maxKeep {
		return 0, fmt.Errorf("must be from 1d to %dd, such as 90d, or forever, not %.40q", maxKeep/minKeep, text)
	}
	return d, nil
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
