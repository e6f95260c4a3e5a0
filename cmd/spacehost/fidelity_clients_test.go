package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// call runs a client that makes all calls, on both sides concurrently.
func (s *sides) call(v verdicts, way string, command func(plan []byte) *exec.Cmd) {
	t := s.t
	cases := s.cases(func(c fidelityCase) bool { return c.args != "" })
	var got [2]map[string]string
	var both sync.WaitGroup
	for side := range got {
		both.Go(func() { got[side] = s.callSide(side, cases, way, command) })
	}
	both.Wait()
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) { v.judge(t, c, way, [2]string{got[ours][c.name], got[stock][c.name]}) })
	}
}

// callPlan is the input of testdata/clients/fidelity.py and fidelity.mjs.
type callPlan struct {
	URL   string     `json:"url"`
	Files string     `json:"files"`
	Pages []callPage `json:"pages"`
}

type callPage struct {
	Path  string     `json:"path"`
	Auth  []string   `json:"auth,omitempty"`
	Calls []callCase `json:"calls"`
}

type callCase struct {
	Name string          `json:"name"`
	Args json.RawMessage `json:"args"`
}

func (s *sides) callSide(side int, cases []fidelityCase, way string, command func([]byte) *exec.Cmd) map[string]string {
	files, err := filepath.Abs(filepath.Join(fidelityDir, "components", "files"))
	if err != nil {
		s.t.Error(err)
	}
	plan := callPlan{Files: files}
	for _, c := range cases {
		url := s.at(side, c.page)
		if len(plan.Pages) == 0 || plan.Pages[len(plan.Pages)-1].Path != url {
			plan.Pages = append(plan.Pages, callPage{Path: url, Auth: c.auth})
		}
		last := &plan.Pages[len(plan.Pages)-1]
		last.Calls = append(last.Calls, callCase{c.name, json.RawMessage(c.args)})
	}
	text, err := json.Marshal(plan)
	if err != nil {
		s.t.Errorf("arguments: %v", err)
		return nil
	}
	cmd := command(text)
	cmd.Stdin, cmd.WaitDelay = bytes.NewReader(text), time.Second
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		s.t.Errorf("%s at %s: %v: %s", way, sideNames[side], err, stderr.String())
	}
	got := map[string]string{}
	for line := range strings.Lines(string(out)) {
		var answer struct{ Name string }
		if json.Unmarshal([]byte(line), &answer) == nil { // other output is skipped
			got[answer.Name] += masked(line)
		}
		if strings.HasPrefix(answer.Name, "http") {
			s.t.Errorf("%s at %s: %s", way, sideNames[side], line)
		}
	}
	return got
}

func (s *sides) python() func([]byte) *exec.Cmd {
	python, home := environmentOf(s.t, s.line), s.t.TempDir()
	return func([]byte) *exec.Cmd {
		cmd := exec.Command(python, filepath.Join("testdata", "clients", "fidelity.py"))
		cmd.Env = append(os.Environ(), "GRADIO_ANALYTICS_ENABLED=False", "HOME="+home)
		return cmd
	}
}

func (s *sides) javaScript() func([]byte) *exec.Cmd {
	node := requireProgram(s.t, "Node", "node", "nodejs")
	dir := nodePackages(s.t, "fidelity.mjs")
	return func([]byte) *exec.Cmd { return exec.Command(node, filepath.Join(dir, "fidelity.mjs")) }
}
