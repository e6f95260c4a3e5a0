package views

import (
	"fmt"
	"strings"
	"time"

	"spacehost/internal/lease"
)

// Maintenance describes drains of operators that keep a call from starting, such as "The GPUs of this host are out of
// service until 17:00 CET: new fan", in the time zone of now. It has no full stop; "" without drains.
func Maintenance(drains []lease.Drain, now time.Time) string {
	if len(drains) == 0 {
		return ""
	}
	var texts []string
	for _, d := range drains {
		text := strings.TrimSpace(Window(d, now))
		if text != "" {
			text = " " + text
		}
		texts = append(texts, text+": "+d.Reason)
	}
	return "The GPUs of this host are out of service" + strings.Join(texts, ";")
}

// Window describes when a drain is in force, such as "until 17:00 CET" or "from Dec 1 14:00 CET". It is empty for one that is
// in force until the Device is returned.
func Window(d lease.Drain, now time.Time) string {
	var texts []string
	if d.From.After(now) {
		texts = append(texts, "from "+moment(d.From, now))
	}
	if !d.Until.IsZero() {
		texts = append(texts, "until "+moment(d.Until, now))
	}
	return strings.Join(texts, " ")
}

// moment returns a time in the time zone of now, with its date unless it is today.
func moment(t, now time.Time) string {
	t = t.In(now.Location())
	zone, _ := t.Zone()
	clock := fmt.Sprintf("%s %s", t.Format("15:04"), zone)
	if t.Year() == now.Year() && t.YearDay() == now.YearDay() {
		return clock
	}
	return t.Format("Jan 2") + " " + clock
}
