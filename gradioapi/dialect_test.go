package gradioapi_test

import (
	"testing"

	"spacehost/queue"
)

// TestDialectFollowsTheReportedVersion: the version that the Space reports selects the dialect of the host's
// messages. An unknown version gets the newest dialect.
func TestDialectFollowsTheReportedVersion(t *testing.T) {
	const (
		v4 = `data: {"msg":"process_completed","event_id":"$ID","output":{"error":"killed","duration":10,"visible":true},"success":false}` + "\n\n"
		v5 = `data: {"msg":"process_completed","event_id":"$ID","output":{"error":"killed","duration":10,"visible":true,"title":"Space stopped"},"success":false,"title":"Space stopped"}` + "\n\n"
		v6 = `data: {"msg":"process_completed","event_id":"$ID","output":{"error":"killed","duration":10,"visible":true,"title":"Space stopped"},"success":false,"title":"Space stopped","used_cache":null,"cache_duration":null,"avg_time":null}` + "\n\n"
	)
	for version, want := range map[string]string{"4.44.1": v4, "4.0.0": v4, "5.49.1": v5, "5.0.0b1": v5, "6.31.0": v6, "7.0.0": v6, "50.1": v6, "40.0": v6, "": v6, "main": v6} {
		h := newHost(t, with(func(m *queue.Manifest) { m.Gradio = version }))
		event := h.join(quick, "s", `["a"]`)
		h.started()
		h.queue.Lost("killed")
		s := h.data("s")
		s.expect(event, firstEstimation, want)
	}
}
