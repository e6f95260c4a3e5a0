package main

import (
	"cmp"
	"slices"
	"time"

	"spacehost/internal/lease"
)

// timeline has the calls of uses as columns.
func (v values) timeline() *lease.Timeline {
	t := &lease.Timeline{From: v.ago(time.Hour), To: v.now, Ends: lease.EndKinds, Spaces: []string{}, Functions: []string{}, Identities: []string{}, Reasons: []string{}}
	t.Missed = lease.MissedCalls{At: []int64{}, Calls: []int{}, Kind: []lease.MissedKind{}}
	t.AddMissed(lease.MissedTimeout, v.ago(40*time.Minute), 1)
	t.AddMissed(lease.MissedRefused, v.ago(20*time.Minute), 3)
	all := v.uses()
	slices.SortFunc(all, func(a, b use) int { return cmp.Or(cmp.Compare(a.slot, b.slot), a.granted.Compare(b.granted)) })
	b := &t.Bars
	*b = lease.TimelineBars{
		Slot: []int{}, Start: []int64{}, Length: []int64{}, Busy: []int64{}, Idle: []int64{}, Declared: []int64{}, Charged: []int64{}, Calls: []int{}, Killed: []int{}, End: []int{},
		Whole: []int{}, Lease: []string{}, Space: []int{}, Function: []int{}, Identity: []int{}, Reason: []int{},
	}
	for _, u := range all {
		took := u.ended.Sub(u.granted).Milliseconds()
		kind, killed := lease.EndReleased, 0
		switch u.state {
		case lease.Expired:
			kind, killed = lease.EndDeadline, 1
		case lease.Revoked:
			kind, killed = lease.EndOperator, 1
		}
		b.Slot, b.Start, b.Length, b.Busy, b.Idle = append(b.Slot, u.slot), append(b.Start, u.granted.Sub(t.From).Milliseconds()), append(b.Length, took), append(b.Busy, took), append(b.Idle, 0)
		b.Declared, b.Charged = append(b.Declared, int64(1000*u.declared)), append(b.Charged, took)
		b.Calls, b.Killed, b.End, b.Whole, b.Lease = append(b.Calls, 1), append(b.Killed, killed), append(b.End, slices.Index(t.Ends, kind)), append(b.Whole, 0), append(b.Lease, u.lease)
		b.Space, b.Function = append(b.Space, at(&t.Spaces, u.space)), append(b.Function, at(&t.Functions, u.function))
		b.Identity, b.Reason = append(b.Identity, at(&t.Identities, u.identity)), append(b.Reason, at(&t.Reasons, u.reason))
	}
	return t
}

// at returns the place of a text in a list, to which it is added.
func at(all *[]string, text string) int {
	i := slices.Index(*all, text)
	if i < 0 {
		i = len(*all)
		*all = append(*all, text)
	}
	return i
}
