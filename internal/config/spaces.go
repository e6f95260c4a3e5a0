package config

import (
	"maps"
	"os"
	"strings"

	"go.yaml.in/yaml/v3"

	"spacehost/internal/lazyregexp"
	"spacehost/internal/web"
)

// spaceEntry is a Space with the nodes of its keys, for the cross checks.
type spaceEntry struct {
	SpaceSettings
	at                                node
	nameAt, addrAt, hostAt, membersAt node // absent keys have the zero node
	urlAt, pathAt                     node
	pythonAt, onAt                    node
	listed                            []memberNode
	isolation                         isolationEntry
	liveness                          livenessEntry
	bar                               *bool // nil: the top level's
}

// memberNode is one name under `members` or `calls`.
type memberNode struct {
	node
	name string
}

var spaceNameRule = lazyregexp.New(`^[a-z0-9_]([a-z0-9._-]{0,94}[a-z0-9_])?$`)

func (l *loader) space(n node) {
	s := spaceEntry{at: n, SpaceSettings: SpaceSettings{Visibility: Public, Variables: map[string]string{}, Secrets: map[string]string{}}}
	folder, fromFile := false, map[string]string{}
	known := map[string]func(node){
		"folder":      func(at node) { folder = true; l.spaceFolder(at, &s.Dir) },
		"name":        func(at node) { s.nameAt = at; l.spaceName(at, &s.Name) },
		"address":     func(at node) { s.addrAt = at; l.address(at, &s.Addr) },
		"host":        func(at node) { s.hostAt = at; l.spaceHost(at, &s.Host) },
		"url":         func(at node) { s.urlAt = at; l.webAddress(at, &s.URL) },
		"path":        func(at node) { s.pathAt = at; l.subPath(at, &s.SubPath) },
		"visibility":  func(at node) { l.visibility(at, &s.Visibility) },
		"members":     func(at node) { s.membersAt = at; l.memberNames(at, &s) },
		"python":      func(at node) { s.pythonAt = at; l.interpreter(at, &s.Python) },
		"on":          s.onKey,
		"concurrency": func(at node) { setOptional(&s.Concurrency)(at.number(0, maxConcurrency)) },
		"variables":   func(at node) { l.variables(at, s.Variables) },
		"secrets":     func(at node) { l.secrets(at, s.Secrets) },
		"env_file":    func(at node) { l.envFile(at, fromFile) },
		"liveness":    s.liveness.read,
		"bar":         func(at node) { setOptional(&s.bar)(at.boolean()) },
	}
	maps.Copy(known, s.isolation.spaceKeys(l))
	n.fields("a mapping that describes a Space", known)
	if n.yaml.Kind != yaml.MappingNode {
		return
	}
	maps.Copy(fromFile, s.Secrets)
	s.Secrets = fromFile
	if !folder {
		n.fail("has no `folder`; add the path of the folder that holds the Space's app.py")
	}
	l.spaces = append(l.spaces, s)
}

func (l *loader) spaceFolder(n node, into *string) {
	if !l.path(n, into) {
		return
	}
	if info, err := os.Stat(*into); err != nil || !info.IsDir() {
		n.fail("%s is not a folder; give the path of a folder, absolute or relative to %s", *into, l.folder)
	}
}

func (l *loader) spaceName(n node, into *string) {
	text, ok := n.text()
	if ok && !spaceNameRule.MatchString(text) {
		n.fail("invalid Space name %.60q; use 1 to 96 of a-z, 0-9, '.', '_' and '-'", text)
		return
	}
	set(into)(text, ok)
}

func (l *loader) spaceHost(n node, into *string) {
	var names []string
	if text, ok := n.text(); ok {
		l.host(n, text, &names)
	}
	if len(names) > 0 {
		*into = names[0]
	}
}

func (l *loader) subPath(n node, into *string) {
	text, ok := n.text()
	if err := web.CheckSubPath(text); ok && err != nil {
		n.fail("invalid sub-path %.60q; %v", text, err)
		return
	}
	set(into)(text, ok)
}

func (l *loader) visibility(n node, into *Visibility) {
	if text, ok := n.oneOf(string(Public), string(Protected), string(Private)); ok {
		*into = Visibility(text)
	} else {
		*into = Private // until the mistake is corrected
	}
}

func (l *loader) memberNames(n node, s *spaceEntry) {
	n.texts("people's names", func(at node, name string) { s.listed = append(s.listed, memberNode{at, name}) })
}

func (l *loader) interpreter(n node, into *string) {
	if !l.path(n, into) {
		return
	}
	if info, err := os.Stat(*into); err != nil || info.IsDir() || info.Mode().Perm()&0o111 == 0 {
		n.fail("%s is not an executable file; give the path of a Python interpreter that has gradio and spaces installed", *into)
	}
}

// eachVariable calls each for the keys of a mapping that are valid variable names. Any other key is a mistake.
func eachVariable(n node, what string, each func(name string, at node)) {
	n.mapping("a mapping of "+what, func(name string, at node) {
		if err := CheckVariable(name); err != nil {
			at.fail("%v", err)
			return
		}
		each(name, at)
	})
}

func (l *loader) variables(n node, into map[string]string) {
	eachVariable(n, "Variables", func(name string, at node) {
		if text, ok := at.scalar(); ok {
			if note := VariableNote(name); note != "" {
				l.warn(at, "%s", note)
			}
			l.setVariable(at, into, name, text)
		}
	})
}

// setVariable stores the value of an environment variable. It refuses a NUL, which ends a value in the environment.
func (l *loader) setVariable(at node, into map[string]string, name, text string) {
	if strings.ContainsRune(text, 0) {
		at.fail("contains a NUL byte, which an environment variable cannot hold; remove it")
		return
	}
	into[name] = text
}

// secrets reads Secrets, which normally come from the host's environment or from a file of their own. The configuration
// can then be shared or put under version control.
func (l *loader) secrets(n node, into map[string]string) {
	eachVariable(n, "Secrets", func(name string, at node) { l.secret(at, into, name) })
}

// secret reads a Secret, or its source.
func (l *loader) secret(at node, into map[string]string, name string) {
	if len(at.yaml.Content) == 0 {
		l.inlineSecret(at, into, name)
		return
	}
	if len(at.yaml.Content) > 2 {
		at.fail("has more than one source; keep either `env` or `file`")
		return
	}
	at.fields("a Secret: {env: NAME} or {file: PATH}", map[string]func(node){
		"env":  func(from node) { l.secretFromEnv(from, into, name) },
		"file": func(from node) { l.secretFromFile(from, into, name) },
	})
}

func (l *loader) inlineSecret(n node, into map[string]string, name string) {
	text, ok := n.scalar()
	if !ok {
		return
	}
	if l.worldReadable {
		l.warn(n, "every user of this machine may read this Secret in %s; run chmod o-r %[1]s, or use {env: NAME} or {file: PATH}", l.file)
	}
	l.setVariable(n, into, name, text)
}

func (l *loader) secretFromEnv(n node, into map[string]string, name string) {
	variable, ok := n.text()
	if !ok {
		return
	}
	text, found := os.LookupEnv(variable)
	if !found {
		n.fail("environment variable %s is not set; set it before you start spacehost", variable)
		return
	}
	l.setVariable(n, into, name, text)
}

func (l *loader) secretFromFile(n node, into map[string]string, name string) {
	var path string
	if !l.path(n, &path) {
		return
	}
	l.addSource(path)
	data, err := readSmall(path, maxSecret)
	if err != nil {
		n.fail("cannot read %s: %v; correct the path or the file", path, WithoutPath(err))
		return
	}
	if isWorldReadable(path) {
		l.warn(n, "every user of this machine may read this Secret; run chmod o-r %s", path)
	}
	l.setVariable(n, into, name, strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r"))
}
