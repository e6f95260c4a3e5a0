package main

import (
	"encoding/json"
	"fmt"
	"math"
	"time"

	"spacehost/gradioapi"
	"spacehost/internal/control"
	"spacehost/internal/dashboard"
	"spacehost/internal/space"
	"spacehost/internal/spacelog"
	"spacehost/internal/stages"
	"spacehost/internal/views"
)

func (v values) spaces() []views.Space {
	stages := []space.Stage{space.Running, space.Running, space.Building, space.RuntimeFailed}
	return list(min(v.rows, len(places)), func(i int) views.Space {
		s := views.Space{
			Name: v.text(places[i].space), URL: fmt.Sprintf("http://127.0.0.1:%d", 7860+i), Stage: string(stages[i]), Gradio: "6.31.0", Native: true, Isolation: "files",
			Title: v.text(places[i].title), Queued: []int{3, 1, 0, 0}[i], PID: []int{48011, 48037, 0, 0}[i],
			Emoji: []string{"🎨", "🎙️", "🧪", "👋"}[i], ColorFrom: []string{"purple", "blue", "yellow", "green"}[i], ColorTo: []string{"pink", "indigo", "red", "blue"}[i],
			ShortDescription: v.text([]string{"Images of 1024 px in a second", "Speech in 99 languages to text", "Train a style from ten pictures", "The sample of the documentation"}[i]),
			SDKVersion:       "6.31.0", Hardware: "zero-a10g", Sizes: []string{"large"}, Visibility: []string{"public", "public", "private", "public"}[i],
		}
		s.Page = s.URL + "/"
		if v.role == dashboard.Admin && i < 2 {
			s.Node = v.text([]string{"gpu-03", "gpu-01"}[i])
		}
		if i == 3 {
			s.Reason = v.text("app.py has exited: ModuleNotFoundError: No module named 'torchaudio'")
		}
		return s
	})
}

func (v values) spaceAPI() dashboard.SpaceAPI {
	return dashboard.SpaceAPI{
		URL: "http://127.0.0.1:7860", Info: gradioapi.Info{Prefix: "/gradio_api", Endpoints: []gradioapi.Endpoint{{Name: "/" + v.text("generate"), Parameters: []gradioapi.Parameter{
			{Name: "prompt", Label: v.text("Prompt"), Type: "str", Component: "Textbox", Example: json.RawMessage(`"a lighthouse at dawn"`)},
			{Name: "steps", Label: v.text("Steps"), Type: "float", Component: "Slider", HasDefault: true, Default: json.RawMessage("20"), Example: json.RawMessage("20")},
		}}}},
	}
}

func (v values) spaceDetail() control.SpaceDetail {
	d := control.SpaceDetail{
		Space: views.Space{}, Stages: []stages.Change{}, Limits: control.SpaceLimits{Memory: 24 << 30, Disk: 50 << 30, Processes: 4096, CPU: 8},
	}
	if v.rows == 0 {
		d.Usage = []control.UsageSample{}
		return d
	}
	d.Space = v.spaces()[0]
	for i, stage := range []string{"RUNNING", "APP_STARTING", "RUNTIME_ERROR", "RUNNING", "APP_STARTING", "BUILDING"} {
		c := stages.Change{At: v.ago(time.Duration(i*i*9+31) * time.Minute), Stage: stage}
		if stage == "RUNTIME_ERROR" {
			c.Reason, c.Cause = v.text("app.py has exited: CUDA error: out of memory"), "crash"
		}
		d.Stages = append(d.Stages, c)
	}
	d.Usage = list(120, func(i int) control.UsageSample {
		wave := 1 + math.Sin(float64(i)/9)
		return control.UsageSample{At: v.ago(time.Duration(120-i) * 30 * time.Second), Memory: int64((7 + 2*wave) * (1 << 30)), Cores: 0.4 + wave, Processes: 42 + int(4*wave), Disk: 9 << 30}
	})
	return d
}

func (v values) log() spacelog.Page {
	texts := []string{
		"INFO:     127.0.0.1:51234 - \"POST /gradio_api/queue/join HTTP/1.1\" 200 OK", "loading the pipeline from the cache", "Fetching 12 files: 100%",
		"UserWarning: the attention mask is not set", "generate: 6.1 s on GPU-00005eed", "Traceback (most recent call last): ValueError: width is not a multiple of 8",
	}
	return spacelog.Page{After: "1-4096", Lines: list(min(60, 3*v.rows), func(i int) spacelog.PageLine {
		l := spacelog.PageLine{Line: spacelog.Line{Time: v.ago(time.Duration(60-i) * 20 * time.Second), Stream: "stdout", Text: v.text(texts[i%len(texts)])}}
		switch i % len(texts) {
		case 3:
			l.Stream, l.Level = "stderr", spacelog.LevelWarning
		case 5:
			l.Stream, l.Level = "stderr", spacelog.LevelError
		}
		return l
	})}
}
