package host

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"spacehost/internal/placement"
	"spacehost/internal/space"
	"spacehost/internal/views"
	"spacehost/worker"
)

// TestNodeOfSpace follows a Space that waits for a node, is placed, moved and drained. Its folder has no app, so each start fails at
// once.
func TestNodeOfSpace(t *testing.T) {
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "README.md"), []byte("---\nsdk: gradio\n---\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const top = "cluster: {listen: '127.0.0.1:0'}"
	far := "- {folder: " + folder + ", name: far, address: '127.0.0.1:0', on: [h200]}\n"
	lab := func(spaces string) string { return strings.Replace(labOf(top, spaces), "isolation: none\n", "", 1) } // for a node, namespaces
	r := startReloadHost(t, lab(spaceOne))
	var nodes atomic.Pointer[[]placement.Node]
	nodes.Store(&[]placement.Node{})
	r.joinedNodes = func() []placement.Node { return *nodes.Load() } // no Space reads it yet
	set := func(all ...placement.Node) {
		nodes.Store(&all)
		r.NodesChanged()
	}
	r.write(lab(spaceOne + far))
	if answer, err := r.ReloadBy(t.Context(), "test"); err != nil || !answer.Applied {
		t.Fatalf("reload: %+v, %v", answer, err)
	}
	s := r.find("far")
	viewOf := func(all []views.Space) views.Space { return all[1] }
	operator := func() views.Space { return viewOf(r.SpaceViews()) }
	waits := func(why string) func() bool {
		return func() bool {
			v := operator()
			return v.Stage == string(space.Building) && v.WaitsForNode && v.Node == "" && v.Reason == "It waits for a machine: "+why+"."
		}
	}
	runsOn := func(node string) func() bool {
		return func() bool {
			v := operator()
			return v.Node == node && !v.WaitsForNode && space.Stage(v.Stage).IsFailed()
		}
	}
	nobody := "no node has the name or label h200, because none has joined; run `spacehost node token` and start an agent with the token"
	r.await("it waits", waits(nobody))
	if v := viewOf(r.PublicSpaceViews()); v.Reason != placement.Waiting || !v.WaitsForNode || v.Node != "" {
		t.Errorf("visitors see %+v", v)
	}
	if text := r.page("far"); !strings.Contains(text, "<strong>BUILDING</strong></p><p>This app waits for a machine.</p>") {
		t.Errorf("its page: %s", text)
	}
	if why := r.WaitsForNode("far"); why != nobody || r.WaitsForNode("one") != "" || r.SpaceViews()[0].Node != placement.Host {
		t.Errorf("far waits because %q; one: %+v", why, r.SpaceViews()[0])
	}

	gpu := func(name string) placement.Node {
		return placement.Node{Name: name, Labels: []string{"h200"}, State: placement.Connected, Devices: 1, FreeSlots: 1}
	}
	drained := gpu("gpu2")
	drained.Drained, drained.Reason = true, "new fan"
	set(drained)
	r.await("it waits for a drained node", waits("no node with the name or label h200 can run it: gpu2 is drained (new fan)"))
	for _, row := range []struct{ space, to, want string }{
		{"far", "gpu2", "far cannot run on gpu2, because the node is drained (new fan)"},
		{"far", "gpu9", `no node is named "gpu9"; nodes: gpu2, host`},
		{"one", "gpu2", "one has no key `on`"},
		{"none", "gpu2", "the Space none was removed by a reload"},
	} {
		if _, err := r.MoveSpace(row.space, row.to, "ada", false); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("move %s to %s: %v", row.space, row.to, err)
		}
	}
	if _, err := r.RebuildSpace(t.Context(), "far", "ada", false, nil); err == nil || !strings.Contains(err.Error(), "far does not run on this machine") {
		t.Errorf("a rebuild: %v", err)
	}
	r.RestartSpace("far", "ada", false) // a try at once changes nothing
	set(gpu("gpu2"))
	r.await("it is placed", runsOn("gpu2"))
	set(gpu("gpu2"), gpu("gpu3"))
	if _, err := r.MoveSpace("far", "gpu3", "ada", false); err != nil {
		t.Fatal(err)
	}
	r.await("it is moved", runsOn("gpu3"))
	set(gpu("gpu3"), drained)
	set(gpu("gpu3"), gpu("gpu2"), gpu("gpu4"))
	if node, _ := s.chooseNode(); node != "gpu3" || operator().Node != "gpu3" {
		t.Errorf("nodes that join move it to %s", node)
	}
	lost := gpu("gpu3")
	lost.State = placement.Lost
	set(lost, gpu("gpu2"))
	r.await("its node is lost", runsOn("gpu2"))
	stored := func(want string) {
		t.Helper()
		r.await("the node "+want+" is stored", func() bool { node, err := r.nodeStore.PlaceOf(t.Context(), "far"); return node == want && err == nil })
	}
	stored("gpu2")
	set(lost)
	r.await("it waits again", waits("no node with the name or label h200 can run it: gpu3 is lost"))
	stored("gpu2")
	again := newSpaceRun(r.Host, *s.settings(), s.space())
	if err := again.loadNode(); err != nil || again.location.target() != "gpu2" {
		t.Errorf("after the next start of the host it is on %q (%v)", again.location.target(), err)
	}
	if _, err := r.PauseSpace(t.Context(), "far", "", "ada", false); err != nil {
		t.Fatal(err)
	}
	r.await("it is paused", func() bool { return s.supervisor.Status().Stage == space.Paused })
	if v := operator(); v.WaitsForNode || v.Reason != pauseText(*v.Paused) {
		t.Errorf("a paused Space waits for a node: %+v", v)
	}
	detail, err := r.SpaceDetail(t.Context(), "far", 1000)
	if err != nil {
		t.Fatal(err)
	}
	moved := false
	for _, change := range detail.Stages {
		moved = moved || change.By == "ada" && change.Stage == string(space.Building)
	}
	if !moved {
		t.Errorf("the history does not name who has moved it: %+v", detail.Stages)
	}
	for _, change := range detail.Stages {
		if change.Cause != "" && change.Cause != string(worker.CauseNode) && change.Cause != string(worker.CausePause) {
			t.Errorf("cause %s: %+v", change.Cause, change)
		}
	}
}

// page returns the page of a Space for a browser.
func (r *reloadHost) page(space string) string {
	r.t.Helper()
	request, err := http.NewRequestWithContext(r.t.Context(), http.MethodGet, "http://"+r.find(space).site().Addr.String()+"/", nil)
	if err != nil {
		r.t.Fatal(err)
	}
	request.Header.Set("Accept", "text/html")
	answer, err := ownClient.Do(request)
	if err != nil {
		r.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return string(text)
}

// TestMoveWithoutCluster refuses the command on a host that no node can join.
func TestMoveWithoutCluster(t *testing.T) {
	r := startReloadHost(t, labOf("", spaceOne))
	_, err := r.MoveSpace("one", "gpu2", "ada", false)
	if err == nil || !strings.Contains(err.Error(), "this host accepts no nodes; add `cluster") {
		t.Errorf("got %v", err)
	}
	if v := r.SpaceViews()[0]; v.Node != "" || v.WaitsForNode {
		t.Errorf("without a cluster: %+v", v)
	}
}
