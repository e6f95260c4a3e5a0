package check

import (
	"encoding/json"
	"io"
	"net/url"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// The part of SARIF 2.1.0 that GitHub's code scanning reads (docs.github.com, "SARIF support for code scanning"). The
// names of fields are those of the standard.
type (
	sarifLog struct {
		Schema  string     `json:"$schema"`
		Version string     `json:"version"`
		Runs    []sarifRun `json:"runs"`
	}
	sarifRun struct {
		Tool        sarifTool                `json:"tool"`
		Bases       map[string]sarifArtifact `json:"originalUriBaseIds"`
		Results     []sarifResult            `json:"results"`
		ColumnKind  string                   `json:"columnKind"`
		Invocations []sarifInvocation        `json:"invocations"`
	}
	sarifTool struct {
		Driver sarifDriver `json:"driver"`
	}
	sarifDriver struct {
		Name    string      `json:"name"`
		Version string      `json:"version,omitempty"`
		Rules   []sarifRule `json:"rules"`
	}
	sarifRule struct {
		ID         string          `json:"id"`
		Short      sarifText       `json:"shortDescription"`
		Full       sarifText       `json:"fullDescription"`
		Help       sarifText       `json:"help"`
		Default    sarifLevel      `json:"defaultConfiguration"`
		Properties sarifProperties `json:"properties"`
	}
	sarifText struct {
		Text     string `json:"text"`
		Markdown string `json:"markdown,omitempty"`
	}
	sarifLevel struct {
		Level string `json:"level"`
	}
	sarifProperties struct {
		Tags     []string `json:"tags"`
		Severity string   `json:"problem.severity"`
	}
	sarifResult struct {
		RuleID       string            `json:"ruleId"`
		RuleIndex    int               `json:"ruleIndex"`
		Level        string            `json:"level"`
		Message      sarifText         `json:"message"`
		Locations    []sarifLocation   `json:"locations"`
		Fingerprints map[string]string `json:"partialFingerprints"`
	}
	sarifLocation struct {
		Physical sarifPhysical `json:"physicalLocation"`
	}
	sarifPhysical struct {
		Artifact sarifArtifact `json:"artifactLocation"`
		Region   *sarifRegion  `json:"region,omitempty"`
	}
	sarifArtifact struct {
		URI  string `json:"uri"`
		Base string `json:"uriBaseId,omitempty"`
	}
	sarifRegion struct {
		Line int `json:"startLine"`
	}
	sarifInvocation struct {
		Successful    bool                `json:"executionSuccessful"`
		Notifications []sarifNotification `json:"toolExecutionNotifications,omitempty"`
	}
	sarifNotification struct {
		Level   string    `json:"level"`
		Message sarifText `json:"message"`
	}
)

const (
	sarifSchema = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
	sarifBase   = "%SRCROOT%" // the name that the standard recommends for the root of the source
)

// sarifLevels are SARIF's words for severities.
var sarifLevels = map[Severity]string{Error: "error", Warning: "warning", Info: "note"}

// writeSARIF writes all rules, because code scanning shows their help and counts rules without results as passed.
func (r *Report) writeSARIF(w io.Writer, v View) error {
	root := v.Root
	if base := filepath.FromSlash(v.Base); filepath.IsAbs(base) {
		root, v.Base = base, ""
	} else if !filepath.IsLocal(base) && base != "" { // the Space is not below the working folder
		root, v.Base = filepath.Join(root, base), ""
	}
	run := sarifRun{
		Tool:       sarifTool{sarifDriver{Name: "spacehost", Version: v.Version, Rules: []sarifRule{}}},
		Bases:      map[string]sarifArtifact{sarifBase: {URI: folderURI(root)}},
		Results:    []sarifResult{},
		ColumnKind: "unicodeCodePoints",
	}
	for _, rule := range Rules() {
		run.Tool.Driver.Rules = append(run.Tool.Driver.Rules, sarifRule{
			ID: rule.ID, Short: sarifText{Text: rule.Title}, Full: sarifText{Text: rule.Title},
			Help:       sarifText{Text: rule.Plain(), Markdown: rule.Markdown()},
			Default:    sarifLevel{sarifLevels[rule.Severity]},
			Properties: sarifProperties{[]string{"zerogpu", "bucket-" + rule.Bucket()}, problemSeverity[rule.Severity]},
		})
	}
	for _, f := range r.Findings {
		run.Results = append(run.Results, r.sarifResult(f, v))
	}
	invocation := sarifInvocation{Successful: r.Unread == nil}
	for _, text := range r.NotLookedAt {
		invocation.Notifications = append(invocation.Notifications, sarifNotification{"note", sarifText{Text: "Not looked at: " + text}})
	}
	run.Invocations = []sarifInvocation{invocation}
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(sarifLog{sarifSchema, "2.1.0", []sarifRun{run}})
}

// problemSeverity holds GitHub's words for the property problem.severity.
var problemSeverity = map[Severity]string{Error: "error", Warning: "warning", Info: "recommendation"}

// sarifResult requires a place in a file, as code scanning does: a finding about the Space as a whole is put on its README.md.
func (r *Report) sarifResult(f Finding, v View) sarifResult {
	index := slices.IndexFunc(Rules(), func(rule Rule) bool { return rule.ID == f.ID })
	file := f.File
	if file == "" || f.folder {
		file = path.Join(file, "README.md")
	}
	location := sarifPhysical{Artifact: sarifArtifact{URI: (&url.URL{Path: path.Join(v.Base, file)}).EscapedPath(), Base: sarifBase}}
	location.Region = &sarifRegion{max(1, f.Line)}
	return sarifResult{
		RuleID: f.ID, RuleIndex: index, Level: sarifLevels[f.Severity], Message: sarifText{Text: f.sentence()},
		Locations: []sarifLocation{{location}}, Fingerprints: map[string]string{"spacehost/v1": f.Fingerprint},
	}
}

// folderURI returns the file: URI of a folder. It ends in a slash, as a base of relative URIs must.
func folderURI(folder string) string {
	text := strings.TrimSuffix(filepath.ToSlash(folder), "/") + "/"
	if !strings.HasPrefix(text, "/") { // C:/work
		text = "/" + text
	}
	return (&url.URL{Scheme: "file", Path: text}).String()
}
