package config

import (
	"slices"

	"go.yaml.in/yaml/v3"

	"spacehost/gpu"
)

// gpus reads either one word for the machine's GPUs, or a mapping with further settings.
func (l *loader) gpus(n node) {
	if n.yaml.Kind != yaml.MappingNode {
		l.machine(n)
		return
	}
	n.fields("auto, none, mock:2xH200, or a mapping of settings", map[string]func(node){
		"machine": l.machine, "large": l.share,
		"unleased":  l.unleased,
		"uninvited": l.unleased, // alias of earlier versions
		"hardware":  l.hardware,
		"per_space": func(at node) { set(&l.settings.PerSpace)(at.number(0, maxConcurrency)) },
	})
}

// machine reads a word, or a list of GPUs of this machine.
func (l *loader) machine(n node) {
	if n.yaml.Kind == yaml.SequenceNode {
		l.onlyGPUs(n)
		return
	}
	text, ok := n.scalar()
	if !ok {
		return
	}
	if err := CheckGPUs(text); err != nil {
		n.fail("%v", err)
		return
	}
	l.settings.GPUs = n.setting(text)
}

// onlyGPUs reads a list of indexes and UUIDs. Whether the machine has them is found when the host starts.
func (l *loader) onlyGPUs(n node) {
	n.list("GPUs by index or UUID", func(at node) {
		text, ok := at.scalar()
		if !ok {
			return
		}
		if err := gpu.CheckSelection(text); err != nil {
			at.fail("%v", err)
			return
		}
		if slices.Contains(l.settings.OnlyGPUs, text) {
			at.fail("%s is listed twice; remove one", text)
			return
		}
		l.settings.OnlyGPUs = append(l.settings.OnlyGPUs, text)
	})
	if len(n.yaml.Content) == 0 {
		n.fail("has no GPU; list at least one, or use auto for all, or none")
	}
	l.settings.GPUs = n.setting("auto")
}

// unleased reads the action for a Space's process that uses a GPU outside any Lease.
func (l *loader) unleased(n node) {
	switch text, ok := n.scalar(); {
	case !ok:
	case text == "end", text == "show":
		l.settings.EndUnleased = text == "end"
	default:
		n.fail("unknown value %.40q; use end or show", text)
	}
}

func (l *loader) hardware(n node) {
	text, ok := n.text()
	if !ok {
		return
	}
	if err := gpu.CheckHardware(text); err != nil {
		n.fail("%v", err)
		return
	}
	l.settings.Hardware = n.setting(text)
}

// share reads the share of a Device that a call of size large gets.
func (l *loader) share(n node) {
	text, ok := n.scalar()
	if !ok {
		return
	}
	share, err := gpu.ParseShare(text)
	if err != nil {
		n.fail("%v", err)
		return
	}
	l.settings.Share = share
}

// SimulatedGPU is the machine that `run` simulates without an NVIDIA GPU, in the words of --gpus mock: one GPU of gpu.NewestHardware.
const SimulatedGPU = "1xRTX-PRO-6000"
