package host

import "sync"

// onceSet detects the first occurrence of a text. Visitors choose the texts, so it records at most maxOnce of them; after
// that no text counts as first.
type onceSet struct {
	mu   sync.Mutex
	seen map[string]bool
}

const maxOnce = 100

func (o *onceSet) isFirst(text string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.seen[text] || len(o.seen) == maxOnce {
		return false
	}
	if o.seen == nil {
		o.seen = map[string]bool{}
	}
	o.seen[text] = true
	return true
}
