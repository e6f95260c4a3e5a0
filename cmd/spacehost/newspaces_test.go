package main

import (
	"testing"
)

// TestGPUCallsWithNewSpaces tells the stories of GPU calls with the pre-release of spaces: every function of the sample (a
// plain call, a generator, progress, a toast, a dynamic duration), a deadline, gr.Error, and a warm worker.
func TestGPUCallsWithNewSpaces(t *testing.T) {
	for _, line := range newSpacesLines() {
		t.Run(line, func(t *testing.T) {
			t.Run("sample", func(t *testing.T) {
				p := sampleOn(t, line)
				if health := p.health().Spaces[0]; !health.Native || health.Why != "" {
					t.Errorf("health: %+v, want native", health)
				}
				pythonClientCallsEveryFunction(t, p)
			})
			t.Run("deadline", func(t *testing.T) { overstayingWorkerIsEnded(t, line) })
			t.Run("gr.Error", func(t *testing.T) { oneWorkerPerSlot(t, line) })
			t.Run("warm", func(t *testing.T) { warmWorker(t, line) })
		})
	}
}
