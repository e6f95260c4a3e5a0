package link

import (
	"encoding/json"
	"sync"
	"time"

	"go.uber.org/zap"
)

// pulse records the beats of both ends.
type pulse struct {
	onTime chan struct{} // a message has come although the link was suspect

	mu      sync.Mutex
	last    time.Time // of the latest message of the peer
	suspect bool
	sent    [32]struct { // the latest beats of this end, by number
		number uint64
		at     time.Time
	}
	number   uint64 // of the latest beat of this end
	measured uint64 // the latest of them with a round trip
	seen     uint64 // the latest beat of the peer
	seenAt   time.Time
	rtt      time.Duration
}

func (p *pulse) begin(now time.Time) { p.onTime, p.last = make(chan struct{}, 1), now }

// hear records a message of the peer.
func (p *pulse) hear(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last = now
	if p.suspect {
		p.suspect = false
		p.onTime <- struct{}{} // has room: watch has received the former one before it called late again
	}
}

// late reports the time since the latest message, and whether the link becomes suspect now.
func (p *pulse) late(now time.Time) (since time.Duration, suspect bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	since = now.Sub(p.last)
	if since < SuspectAfter || p.suspect || len(p.onTime) > 0 {
		return since, false
	}
	p.suspect = true
	return since, true
}

// next returns the next beat of this end.
func (p *pulse) next(now time.Time) beat {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.number++
	slot := &p.sent[p.number%uint64(len(p.sent))]
	slot.number, slot.at = p.number, now
	b := beat{Number: p.number, Seen: p.seen}
	if p.seen > 0 {
		b.Held = now.Sub(p.seenAt)
	}
	return b
}

// onBeat measures the round trip of the latest beat that the peer has seen.
func (p *pulse) onBeat(b beat, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen, p.seenAt = b.Number, now
	slot := p.sent[b.Seen%uint64(len(p.sent))]
	if b.Seen == 0 || b.Seen <= p.measured || slot.number != b.Seen {
		return
	}
	p.measured = b.Seen
	p.rtt = max(0, now.Sub(slot.at)-max(0, b.Held))
}

func (p *pulse) roundTrip() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.rtt
}

func (p *pulse) heard() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last
}

func (l *Link) onBeat(body json.RawMessage) {
	var b beat
	if err := json.Unmarshal(body, &b); err != nil {
		l.log.Debug("decode a beat", zap.String("node", l.peer), zap.Error(err))
		return
	}
	l.pulse.onBeat(b, time.Now())
}

// sendBeats sends a beat each second, until the link is down.
func (l *Link) sendBeats() {
	ticker := time.NewTicker(BeatInterval)
	defer ticker.Stop()
	for {
		_ = l.send(message{Op: opBeat}, l.pulse.next(time.Now())) // fails only if the link is down
		select {
		case <-ticker.C:
		case <-l.ctx.Done():
			return
		}
	}
}

// watch reports late messages to the Handler, and ends a link that is lost.
func (l *Link) watch() {
	timer := time.NewTimer(SuspectAfter)
	defer timer.Stop()
	for {
		select {
		case <-l.ctx.Done():
			return
		case <-l.pulse.onTime:
			l.handler.Suspect(l, false)
			timer.Reset(time.Until(l.pulse.heard().Add(SuspectAfter)))
		case <-timer.C:
			since, suspect := l.pulse.late(time.Now())
			if since >= LostAfter {
				l.close(ErrLost, &RemoteError{Code: CodeLost, Text: ErrLost.Error()})
				return
			}
			if suspect {
				l.handler.Suspect(l, true)
			}
			if since < SuspectAfter {
				timer.Reset(SuspectAfter - since)
			} else {
				timer.Reset(LostAfter - since)
			}
		}
	}
}
