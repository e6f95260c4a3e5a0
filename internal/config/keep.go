package config

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

const (
	// DefaultKeep is longer than anybody disputes a charge.
	DefaultKeep = 90 * 24 * time.Hour
	// leastKeep is the day that a quota window lasts.
	leastKeep = 24 * time.Hour
	mostKeep  = 100 * 365 * 24 * time.Hour
)

// parseKeep reads how long what is over is kept: 90d, 720h, or forever.
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
	if err != nil || d < leastKeep || d > mostKeep {
		return 0, fmt.Errorf("must be from 1d to %dd, as 90d, or forever, and not %.40q", mostKeep/leastKeep, text)
	}
	return d, nil
}

func (v value) keep() (time.Duration, bool) {
	text, ok := v.plain()
	if !ok {
		return 0, false
	}
	d, err := parseKeep(text)
	if err != nil {
		v.fail("%v", err)
	}
	return d, err == nil
}
