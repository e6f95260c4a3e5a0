package config

import (
	"fmt"
	"slices"

	"go.yaml.in/yaml/v3"

	"spacehost/internal/notify"
)

// webhook reads one item of `webhooks`.
func (l *loader) webhook(n node) {
	hook, events := notify.Hook{Format: notify.JSON}, node{}
	l.webhookKeys(n, &hook, map[string]func(node){
		"events": func(at node) { events = at; l.webhookEvents(at, &hook) },
		"name":   func(at node) { set(&hook.Name)(at.text()) },
	})
	if events.isPresent() && len(events.yaml.Content) == 0 {
		events.fail("has no event; list at least one, or remove the key to receive all")
	}
	l.addWebhook(hook)
}

// personWebhook reads the `webhook` of a person: a URL, or a mapping. Its name is that of the person.
func (l *loader) personWebhook(n node) notify.Hook {
	hook := notify.Hook{Format: notify.JSON}
	if n.yaml.Kind != yaml.MappingNode {
		l.webhookURL(n, &hook)
		return hook
	}
	l.webhookKeys(n, &hook, nil)
	return hook
}

func (l *loader) webhookKeys(n node, hook *notify.Hook, further map[string]func(node)) {
	known := map[string]func(node){
		"url":         func(at node) { l.webhookURL(at, hook) },
		"secret":      func(at node) { l.webhookSecret(at, hook, l.secretText) },
		"secret_file": func(at node) { l.webhookSecret(at, hook, l.fileText) },
		"format":      func(at node) { l.webhookFormat(at, hook) },
	}
	for key, read := range further {
		known[key] = read
	}
	before := len(l.problems)
	n.fields("a mapping that describes a webhook (url, secret, format, events)", known)
	if hook.URL == "" && len(l.problems) == before {
		n.fail("has no `url`; add one")
	}
}

func (l *loader) webhookURL(n node, hook *notify.Hook) {
	text, ok := l.secretText(n)
	if !ok {
		return
	}
	if err := notify.CheckURL(text); err != nil {
		n.fail("%v", err)
		return
	}
	hook.URL = text
}

func (l *loader) webhookSecret(n node, hook *notify.Hook, read func(node) (string, bool)) {
	if hook.Secret != "" {
		n.fail("the webhook has a secret already; keep either `secret` or `secret_file`")
		return
	}
	text, ok := read(n)
	if !ok {
		return
	}
	if err := notify.CheckSecret(text); err != nil {
		n.fail("%v", err)
		return
	}
	hook.Secret = text
}

func (l *loader) webhookFormat(n node, hook *notify.Hook) {
	if text, ok := n.oneOf(string(notify.JSON), string(notify.Slack)); ok {
		hook.Format = notify.Format(text)
	}
}

func (l *loader) webhookEvents(n node, hook *notify.Hook) {
	var names []string
	for _, kind := range notify.Kinds {
		names = append(names, string(kind))
	}
	n.list("events", func(at node) {
		if text, ok := at.oneOf(names...); ok {
			hook.Kinds = append(hook.Kinds, notify.Kind(text))
		}
	})
}

// addWebhook gives a hook a name that no other one has: its host, unless the file names it.
func (l *loader) addWebhook(hook notify.Hook) {
	if hook.Name == "" {
		hook.Name = notify.HostOf(hook.URL)
	}
	for base, n := hook.Name, 2; slices.ContainsFunc(l.settings.Webhooks, func(o notify.Hook) bool { return o.Name == hook.Name }); n++ {
		hook.Name = fmt.Sprintf("%s#%d", base, n)
	}
	l.settings.Webhooks = append(l.settings.Webhooks, hook)
}

// secretText reads a text that may be given as itself, as {env: NAME} or as {file: PATH}.
func (l *loader) secretText(n node) (text string, ok bool) {
	into := map[string]string{}
	l.secret(n, into, "")
	text, ok = into[""]
	return text, ok
}

// fileText reads the text of a file whose path is the value.
func (l *loader) fileText(n node) (text string, ok bool) {
	into := map[string]string{}
	l.secretFromFile(n, into, "")
	text, ok = into[""]
	return text, ok
}

// webhookFields are the keys of a webhook in a difference. The URL and the secret are not shown.
var webhookFields = []field[notify.Hook]{
	{"url", AtOnce, func(h notify.Hook) string { return h.URL }, true},
	{"secret", AtOnce, func(h notify.Hook) string { return h.Secret }, true},
	{"format", AtOnce, func(h notify.Hook) string { return string(h.Format) }, false},
	{"events", AtOnce, eventsText, false},
}

func eventsText(h notify.Hook) string {
	if h.Kinds == nil {
		return "all"
	}
	return list(sorted(h.Kinds))
}

func webhookChanges(from, to []notify.Hook) []Change {
	name := func(h notify.Hook) string { return h.Name }
	return entryChanges("webhook", byName(from, name), byName(to, name), webhookFields, eventsText)
}
