package placement

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// scene is a random cluster with a Space.
type scene struct {
	space   Space
	nodes   []Node
	running string
}

func sceneOf(random *rand.Rand) (c scene) {
	words := []string{"a", "b", "c", "gpu0", "gpu3", Host}
	some := func(from []string, most int) (all []string) {
		for range random.IntN(most + 1) {
			all = append(all, from[random.IntN(len(from))])
		}
		return all
	}
	for i := range random.IntN(8) {
		c.nodes = append(c.nodes, Node{
			Name: fmt.Sprintf("gpu%d", i), Labels: some(words[:3], 3), State: []State{Connected, Connected, Connected, Suspect, Lost, Joined, Revoked, Awaited}[random.IntN(8)],
			Drained: random.IntN(6) == 0, Devices: random.IntN(3), FreeSlots: random.IntN(4), Spaces: random.IntN(4), Memory: int64(random.IntN(3)),
			Leaves: []time.Duration{0, time.Minute, time.Hour}[random.IntN(3)],
		})
	}
	c.nodes = append(c.nodes, Node{Name: Host, State: Connected, Devices: random.IntN(2), FreeSlots: random.IntN(4)})
	c.space = Space{Name: fmt.Sprintf("space%d", random.IntN(9)), On: some(words, 3), NeedsGPU: random.IntN(3) > 0}
	if random.IntN(2) == 0 {
		c.running = c.nodes[random.IntN(len(c.nodes))].Name
	}
	return c
}

// checkScene checks the properties of Choose.
func checkScene(t *testing.T, random *rand.Rand) {
	c := sceneOf(random)
	node, why := Choose(c.space, c.nodes, c.running)
	if (node == "") != (why != "") {
		t.Fatalf("node %q with the reason %q: %+v", node, why, c)
	}
	shuffled := slices.Clone(c.nodes)
	random.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
	if again, reason := Choose(c.space, shuffled, c.running); again != node || reason != why {
		t.Fatalf("another order gives %q, %q instead of %q, %q: %+v", again, reason, node, why, c)
	}
	if node == "" {
		return
	}
	if again, _ := Choose(c.space, c.nodes, node); again != node {
		t.Fatalf("a Space on %q moves to %q: %+v", node, again, c)
	}
	if len(c.space.On) > 0 {
		i := slices.IndexFunc(c.nodes, func(n Node) bool { return n.Name == node })
		if chosen := c.nodes[i]; !c.space.matches(chosen) || !c.space.mayStay(chosen) || node != c.running && c.space.obstacle(chosen) != "" {
			t.Fatalf("chose %q: %+v", node, c)
		}
		if node != c.running {
			if err := CheckMove(c.space, c.nodes, c.running, node); err != nil {
				t.Fatalf("chose %q, which CheckMove refuses: %v", node, err)
			}
		}
	}
	joined := Node{Name: "new", Labels: []string{"a", "b", "c"}, State: Connected, Devices: 8, FreeSlots: 64, Memory: 1 << 40}
	if again, _ := Choose(c.space, append(shuffled, joined), node); again != node {
		t.Fatalf("a node that joins moves the Space from %q to %q: %+v", node, again, c)
	}
	if again, _ := Choose(c.space, append(shuffled, joined), c.running); again != node && again != joined.Name {
		t.Fatalf("a node that joins changes the choice from %q to %q: %+v", node, again, c)
	}
	others := slices.DeleteFunc(slices.Clone(c.nodes), func(n Node) bool { return n.Name != node && n.Name != Host && random.IntN(2) == 0 })
	if again, _ := Choose(c.space, others, c.running); again != node {
		t.Fatalf("without other nodes the choice is %q instead of %q: %+v", again, node, c)
	}
}

func TestChooseProperties(t *testing.T) {
	for seed := range uint64(20_000) {
		checkScene(t, rand.New(rand.NewPCG(seed, 0)))
	}
}

func FuzzChoose(f *testing.F) {
	f.Add(uint64(1), uint64(2))
	f.Fuzz(func(t *testing.T, a, b uint64) { checkScene(t, rand.New(rand.NewPCG(a, b))) })
}
