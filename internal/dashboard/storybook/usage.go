package main

import (
	"cmp"
	"strconv"
	"time"

	"spacehost/internal/control"
)

// usage is that of the time that the request asks for, by person. A request without a time gets a day. The sums of the rows are the total.
func (v values) usage() control.Usage {
	from, to := v.asked("from", v.ago(24*time.Hour)), v.asked("to", v.now)
	seconds, _ := strconv.Atoi(v.asks.Get("bucket")) // 0: without buckets
	bucket := cmp.Or(time.Duration(seconds)*time.Second, time.Hour)
	u := control.Usage{From: from, To: to, By: "person", BucketSeconds: float64(seconds), Rows: []control.UsageRow{}}
	random := v.random()
	for i := range min(v.rows, len(names)) {
		row := control.UsageRow{Key: v.payer(i), Buckets: []control.UsageSums{}}
		for at := from; at.Before(to); at = at.Add(bucket) {
			part := control.UsageSums{}
			if !at.After(v.now) {
				part = callsIn(bucket, random.Float64(), i)
			}
			if seconds > 0 {
				row.Buckets = append(row.Buckets, part)
			}
			addUsage(&row.UsageSums, part)
		}
		addUsage(&u.Total, row.UsageSums)
		u.Rows = append(u.Rows, row)
	}
	return u
}

// callsIn are the sums of a person in a part of the time. share is from 0 to 1, and the first people call the most.
func callsIn(bucket time.Duration, share float64, person int) control.UsageSums {
	calls := int(share * bucket.Hours() * 0.9 * float64(len(names)-person))
	used := float64(calls) * []float64{14, 2.1, 9, 1.3, 3.4, 20, 11, 1}[person]
	return control.UsageSums{Calls: calls, Refusals: calls / 5, Kills: calls / 6, UsedSeconds: used, DeclaredSeconds: 2.4 * used, HeldSeconds: 2.4 * used, ChargedSeconds: used}
}

// asked returns a time of the query, or another one.
func (v values) asked(name string, otherwise time.Time) time.Time {
	if at, err := time.Parse(time.RFC3339, v.asks.Get(name)); err == nil {
		return at
	}
	return otherwise
}

func addUsage(sum *control.UsageSums, part control.UsageSums) {
	sum.Calls += part.Calls
	sum.Refusals += part.Refusals
	sum.Kills += part.Kills
	sum.UsedSeconds += part.UsedSeconds
	sum.DeclaredSeconds += part.DeclaredSeconds
	sum.HeldSeconds += part.HeldSeconds
	sum.ChargedSeconds += part.ChargedSeconds
}
