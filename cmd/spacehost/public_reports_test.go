package main

import "testing"

// TestPublicReports repeats what users of Gradio and ZeroGPU reported, and what Gradio's own tests check. Each value is
// that of stock Gradio.
func TestPublicReports(t *testing.T) {
	eachLine(t, func(t *testing.T, line string) {
		p := runOn(t, line, "testdata/spaces/public-reports")
		t.Run("an app calls itself", p.testCallsItself)
	})
}

func (p *product) testCallsItself(t *testing.T) {
	if got := p.client().ok("/call_itself"); got != "200" {
		t.Errorf("demo.local_api_url answers %s, want 200", got)
	}
}
