package main

import (
	"fmt"
	"slices"
	"time"

	"spacehost/gpu"
	"spacehost/internal/control"
	"spacehost/internal/lease"
)

// The canned machine: four GPUs of two slots. The third one is drained, and the last one does not answer.
const (
	gpuCount = 4
	total    = 141 << 30 // bytes of memory
)

func uuid(i int) gpu.DeviceUUID {
	return gpu.DeviceUUID(fmt.Sprintf("GPU-%08x-1f0a-4b57-9c3d-%012x", i*7+0x5eed, i+1))
}

func (v values) gpus() []control.GPU {
	if v.rows == 0 {
		return []control.GPU{}
	}
	return list(gpuCount, func(i int) control.GPU {
		g := control.GPU{Slots: []lease.SlotView{{Slot: 2 * i, Device: uuid(i)}, {Slot: 2*i + 1, Device: uuid(i)}}}
		g.Device = gpu.Device{UUID: uuid(i), Index: i, Name: "NVIDIA H200", MemoryTotal: total}
		g.MemoryUsed = []uint64{92 << 30, 61 << 30, 1 << 30, 0}[i]
		g.MemoryFree, g.Processes = total-g.MemoryUsed, []gpu.Process{}
		if i < gpuCount-1 {
			g.Sensors = gpu.Sensors{Utilization: new([]int{87, 54, 0}[i]), Temperature: new([]int{68, 59, 34}[i]), Power: new([]float64{512, 388, 92}[i]), PowerLimit: new(700.0)}
		}
		for s := range g.Slots {
			g.Slots[s].Phase = "free"
		}
		v.setUse(i, &g)
		return g
	})
}

// setUse adds what happens at a GPU.
func (v values) setUse(i int, g *control.GPU) {
	holds := func(slot, lease int) {
		g.Slots[slot].Phase, g.Slots[slot].Space, g.Slots[slot].Lease = "held", v.text(places[lease%len(places)].space), short(lease)
	}
	switch i {
	case 0:
		holds(0, 0)
		holds(1, 1)
	case 1:
		holds(0, 2)
		g.Slots[1].Phase, g.Slots[1].Space, g.Slots[1].Worker = "warm", v.text("sana-sprint"), 48211
		g.Uninvited = []lease.Unleased{{Device: g.UUID, PID: 3127, Since: v.ago(12 * time.Minute)}}
	case 2:
		g.Drained = &lease.Drain{Reason: v.text("new fan"), Operator: true, Until: v.now.Add(2 * time.Hour)}
		for s := range g.Slots {
			g.Slots[s].Phase, g.Slots[s].Reason = "drained", v.text("new fan")
		}
	case 3:
		g.Error = "the driver does not answer: GPU is lost"
		g.MemoryUsed, g.MemoryFree = 0, 0
		for s := range g.Slots {
			g.Slots[s].Phase, g.Slots[s].Reason = "busy", "cannot be read"
		}
	}
}

// running is the number of leases that have a slot; the others wait.
const running = 3

func (v values) leases() control.Leases {
	open := 8
	if v.rows > 100 {
		open = v.rows
	}
	ended := v.uses()
	slices.Reverse(ended)
	return control.Leases{
		Now: v.now, Open: list(min(open, v.rows), v.snapshot),
		Ended: list(min(100, len(ended)), func(i int) lease.Past {
			u := ended[i]
			return lease.Past{Lease: u.lease, State: u.state, Reason: u.reason, Space: u.space, Identity: u.identity, DeclaredSeconds: u.declared,
				ChargedSeconds: u.ended.Sub(u.granted).Seconds(), Admitted: u.granted.Add(-2 * time.Second), Ended: u.ended}
		}),
	}
}

func (v values) snapshot(i int) lease.Snapshot {
	p := places[i%len(places)]
	s := lease.Snapshot{
		Lease: short(i), State: lease.Waiting, Space: v.text(p.space), Identity: v.payer(i), Tier: tiers[i%len(tiers)], Function: v.text(p.function), Size: "large",
		DeclaredSeconds: p.declared, Admitted: v.ago(time.Duration(40-i%40) * time.Second),
	}
	if i < running {
		slot, deadline := []int{0, 1, 2}[i], v.now.Add(time.Duration(8+17*i)*time.Second)
		since := deadline.Add(-time.Duration(p.declared * float64(time.Second)))
		s.Granted, s.Active = &since, &since
		s.State, s.Slot, s.Device, s.Worker, s.Deadline, s.UsedSeconds = lease.Active, &slot, uuid(slot/2), 48100+i, &deadline, p.declared/3
		return s
	}
	start := v.now.Add(time.Duration(7*(i-running)+4) * time.Second)
	s.Forecast = &lease.Forecast{Rank: i - running, Reason: lease.Node, Start: &start, GivesUp: v.now.Add(10 * time.Minute)}
	s.Priority = &lease.Priority{Score: 0.62, EffectiveTime: s.Admitted.Add(-9 * time.Second), HeadStartSeconds: 9}
	if i%5 == 0 {
		s.Forecast.Reason, s.Forecast.Limit = lease.Concurrency, lease.OfSpace
	}
	return s
}

// use is the time for which one ended lease had a slot.
type use struct {
	lease, space, function, identity, reason string
	slot                                     int
	state                                    lease.State
	granted, ended                           time.Time
	declared                                 float64 // seconds
}

// uses fills the slots of the first three GPUs for the last hour, oldest first.
func (v values) uses() []use {
	all := []use{}
	if v.rows == 0 {
		return all
	}
	random := v.random()
	pause := 45.0
	if v.rows > 100 {
		pause = 4
	}
	for slot := range 6 {
		for at := v.ago(time.Hour); ; {
			p := places[random.IntN(len(places))]
			used := p.used * (0.6 + 0.8*random.Float64())
			begin := at.Add(time.Duration(random.Float64() * pause * float64(time.Second)))
			end := begin.Add(time.Duration(min(used, p.declared) * float64(time.Second)))
			if end.After(v.ago(time.Minute)) {
				break
			}
			state, reason := v.endOf(random.IntN(24))
			all = append(all, use{
				lease: short(len(all) + 100), space: v.text(p.space), function: v.text(p.function), identity: v.payer(random.IntN(len(names))), reason: reason,
				slot: slot, state: state, granted: begin, ended: end, declared: p.declared,
			})
			at = end
		}
	}
	slices.SortFunc(all, func(a, b use) int { return a.ended.Compare(b.ended) })
	return all
}

func (v values) endOf(n int) (lease.State, string) {
	switch n {
	case 0, 1:
		return lease.Expired, "the declared seconds are over"
	case 2:
		return lease.Revoked, v.text("ended by an operator")
	}
	return lease.Released, "released"
}
