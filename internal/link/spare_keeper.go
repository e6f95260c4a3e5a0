package link

import (
	"math/rand/v2"
	"sync"
	"time"

	"go.uber.org/zap"
)

// spareKeeper keeps spares ready at the front. It runs at the agent.
type spareKeeper struct {
	end  *agentEnd
	wake chan struct{}

	mu      sync.Mutex
	count   int         // idle, or being dialled
	used    []time.Time // when the front took one, at most maxSpares in sparesWindow
	retryAt time.Time
	fullAt  time.Time // until then one spare is enough, if none is used
}

func newSpareKeeper(end *agentEnd) *spareKeeper {
	return &spareKeeper{end: end, wake: make(chan struct{}, 1), fullAt: time.Now().Add(rand.N(sparesDelay))}
}

// run dials spares until the link is down.
func (k *spareKeeper) run() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	wanted := minSpares // what the front knows
	for {
		missing, target, wait := k.plan(time.Now())
		for range missing {
			k.end.link.running.Go(k.dial)
		}
		if target < wanted {
			_ = k.end.link.Tell(opKeep, target) // fails only if the link is down
		}
		wanted = target
		timer.Reset(wait)
		select {
		case <-k.end.link.ctx.Done():
			return
		case <-k.wake:
		case <-timer.C:
		}
	}
}

// plan returns how many spares to dial, how many there should be, and how long that holds unless one is used or ends.
func (k *spareKeeper) plan(now time.Time) (missing, target int, wait time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for len(k.used) > 0 && now.Sub(k.used[0]) >= sparesWindow {
		k.used = k.used[1:]
	}
	target = min(max(minSpares, len(k.used)), maxSpares)
	wait = sparesWindow
	if len(k.used) > 0 {
		wait = k.used[0].Add(sparesWindow).Sub(now)
	}
	switch pause := k.retryAt.Sub(now); {
	case k.count >= target:
	case pause > 0:
		wait = min(wait, pause)
	case len(k.used) == 0 && now.Before(k.fullAt):
		missing, wait = max(0, 1-k.count), k.fullAt.Sub(now)
		k.count += missing
	default:
		missing = target - k.count
		k.count = target
	}
	return missing, target, wait
}

// dial makes one spare and serves the stream that the front makes of it.
func (k *spareKeeper) dial() {
	l := k.end.link
	s, err := k.end.connect(l.ctx, opening{Kind: kindSpare, Link: l.id})
	if err != nil {
		k.gone(err)
		return
	}
	if !l.adopt(s) {
		s.abort()
		return
	}
	var w wanted
	if err := readLine(s, &w); err != nil {
		s.Close()
		k.gone(err)
		return
	}
	k.taken(time.Now())
	l.serveStream(s, w.Hello)
}

// gone records that a spare could not be made, or that the front has closed it.
func (k *spareKeeper) gone(err error) {
	if k.end.link.ctx.Err() == nil {
		k.end.Logger.Debug("spare connection", zap.Error(err))
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.count--
	k.retryAt = time.Now().Add(sparesRetry)
	k.changed()
}

// taken records that the front uses a spare.
func (k *spareKeeper) taken(now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.count--
	if k.used = append(k.used, now); len(k.used) > maxSpares {
		k.used = k.used[1:]
	}
	k.changed()
}

func (k *spareKeeper) changed() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}
