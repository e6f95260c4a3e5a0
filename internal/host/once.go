package host

import "sync"

// onces remembers what has been said. Visitors choose the words, so it says a hundred things at most.
type onces struct {
	mu   sync.Mutex
	said map[string]bool
}

func (o *onces) first(text string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.said[text] || len(o.said) == 100 {
		return false
	}
	if o.said == nil {
		o.said = map[string]bool{}
	}
	o.said[text] = true
	return true
}
