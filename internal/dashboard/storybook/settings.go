package main

import (
	"time"

	"spacehost/internal/control"
	"spacehost/internal/doctor"
	"spacehost/internal/version"
)

func (v values) host() control.HostInfo {
	h := control.HostInfo{
		Build:   version.Build{Version: "1.4.0", Commit: "9f2c41d07ab35e81c6d2", Date: v.ago(9 * 24 * time.Hour).Format(time.RFC3339), Go: "go1.26.1", SQLite: "3.53.0"},
		Command: "serve", File: "/etc/spacehost/" + v.text("spacehost.yaml"), Digest: "5be1c07a92d4", PID: 1207, User: v.text("spacehost"), Machine: v.text("gpu-01"),
		StartedAt: v.ago(76*time.Hour + 11*time.Minute), Now: v.now, State: "/var/lib/" + v.text("spacehost"), FreeBytes: 1840 << 30, Database: 212 << 20,
	}
	if v.rows == 0 { // as `spacehost run` reports it
		h.Command, h.File, h.Build.Commit, h.Build.Date = "run", "", "", ""
	}
	return h
}

// settings has each subject, and a value that is not shown.
func (v values) settings() []control.ConfigValue {
	all := []control.ConfigValue{}
	add := func(subject, name, key, value string) {
		all = append(all, control.ConfigValue{Subject: subject, Name: name, Key: key, Value: value})
	}
	if v.rows == 0 {
		return all
	}
	add("host", "", "state", "/var/lib/"+v.text("spacehost"))
	add("host", "", "address", "127.0.0.1:7860")
	add("host", "", "gpus.slots", "2")
	add("host", "", "gpus.unleased", "note")
	add("host", "", "base_url", "https://spaces.example")
	add("host", "", "queue_timeout", "10m0s")
	add("host", "", "trusted_proxies", "")
	for i, tier := range []string{"free", "team", "pro"} {
		add("tier", tier, "quota_seconds", []string{"300", "900", "1500"}[i])
		add("tier", tier, "longest_seconds", []string{"120", "600", "1500"}[i])
	}
	for _, name := range names[:2] {
		add("person", v.text(name), "tier", "pro")
		add("person", v.text(name), "tokens", "2")
	}
	all = append(all, control.ConfigValue{Subject: "webhook", Name: v.text("ops"), Key: "url", Hidden: true})
	for _, p := range places {
		add("space", v.text(p.space), "folder", "/srv/spaces/"+v.text(p.space))
		add("space", v.text(p.space), "isolation", "files")
		add("space", v.text(p.space), "memory", "24GiB")
		all = append(all, control.ConfigValue{Subject: "space", Name: v.text(p.space), Key: "secrets.HF_TOKEN", Hidden: true})
	}
	return all
}

// preview has a change of each kind and effect, except those that refuse the reload.
func (v values) preview() control.ReloadAnswer {
	a := control.ReloadAnswer{File: v.host().File, Digest: "5be1c07a92d4", Changes: []control.ConfigChange{}, Warnings: []string{}, Failed: []control.FailedSpace{}}
	if v.rows == 0 {
		return a
	}
	a.Digest = "c40f9e6612aa"
	person, added, changed := v.text("ina"), v.text("musicgen"), v.text("whisper-large")
	a.Changes = []control.ConfigChange{
		{Subject: "person", Name: person, Change: "added", Effect: "at once", Text: "+ person " + person + " (free)"},
		{Subject: "tier", Name: "free", Change: "changed", Key: "quota_seconds", From: "300", To: "420", Effect: "at once", Text: "~ tier free: quota_seconds 300 -> 420"},
		{Subject: "space", Name: changed, Change: "changed", Key: "memory", From: "24GiB", To: "32GiB", Effect: "restart", Text: "~ space " + changed + ": memory 24GiB -> 32GiB (the Space restarts)"},
		{Subject: "webhook", Name: v.text("ops"), Change: "removed", Effect: "at once", Text: "- webhook " + v.text("ops")},
	}
	a.Failed = []control.FailedSpace{{Space: added, Reason: v.text("README.md: sdk is missing")}}
	return a
}

func (v values) findings() []doctor.Finding {
	return []doctor.Finding{
		{Check: "driver", Level: doctor.OK, Text: "4 GPUs can be leased: NVIDIA H200"},
		{Check: "disk", Level: doctor.OK, Text: "/var/lib/" + v.text("spacehost") + " is on ext4, 1840 GiB are free"},
		{Check: "proxy", Level: doctor.Note, Text: "A Hub token is set here (HF_TOKEN); it is not passed to Spaces", Do: "List it under secrets of a Space that needs it"},
		{Check: "cgroup", Level: doctor.Warning, Text: "The kernel does not limit memory of a Space: cgroup v2 is not delegated", Do: "Set Delegate=yes in the unit of systemd"},
		{Check: "gpu", Level: doctor.Problem, Text: "GPU 3 NVIDIA H200 cannot be used: GPU is lost", Do: "Reset it with nvidia-smi --gpu-reset, or restart the machine"},
	}
}

func (v values) folders() []control.FolderSize {
	folder := func(name string, bytes int64) control.FolderSize {
		return control.FolderSize{Name: name, Path: "/var/lib/spacehost/" + name, Bytes: bytes}
	}
	all := []control.FolderSize{folder("environments", 61<<30), folder("files", 17<<30), folder("logs", 2<<30), folder("spacehost.db", 212<<20), folder("backups", 0)}
	all[4].Error = "permission denied"
	return all
}
