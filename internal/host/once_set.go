package host

import "sync"

// onceSet tells the first occurrence of a text from later ones. Visitors choose the texts, so it holds maxOnce of them and
// then reports no further first one.
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
