package space

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"

	"go.yaml.in/yaml/v3"

	"spacehost/internal/lazyregexp"
	"spacehost/internal/nearest"
)

// wording is the source of the Hub's sentence about a rule.
type wording bool

const (
	seen    wording = true  // quoted in public logs
	deduced wording = false // of the same form as those that were seen, but not confirmed
)

// Values that the Hub accepts (hub-docs: spaces-config-reference.md, spaces-oauth.md; OpenAPI of 2026-08-17).
var (
	colors      = []string{"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
	headers     = []string{"mini", "default"}
	oauthScopes = []string{
		"openid", "profile", "email", "read-billing", "read-memberships", "read-repos", "gated-repos", "contribute-repos", "write-repos",
		"manage-repos", "read-collections", "write-collections", "inference-api", "read-endpoints", "write-endpoints", "jobs", "webhooks",
		"write-discussions",
	}
	// customHeaders are those of ApiSpaceMetadata (huggingface.js, api-space.ts).
	customHeaders = map[string][]string{
		"cross-origin-embedder-policy": {"unsafe-none", "require-corp", "credentialless"},
		"cross-origin-opener-policy":   {"same-origin", "same-origin-allow-popups", "unsafe-none"},
		"cross-origin-resource-policy": {"same-site", "same-origin", "cross-origin"},
	}
	// hardware joins the reference, huggingface.js and the OpenAPI; the last names families.
	hardware = lazyregexp.New(`^(cpu-(basic|upgrade|xl|performance)|sprx8|zero-a10g|t4-(small|medium)|l4x[14]|l40sx[148]|a10g-(small|large|largex2|largex4)|` +
		`a100-large|a100x[48]|h200.*|rtx-pro-6000(x[248])?|inf2x6)$`)
)

func enumeration(values []string) string { return strings.Join(values, ", ") }

// mustBeOneOf is the Hub's sentence; its validator is Joi.
func mustBeOneOf(key string, values []string) string {
	return fmt.Sprintf("%q must be one of [%s]", key, enumeration(values))
}

// oneOf returns the check of a text with fixed values.
func oneOf(values []string, source wording) func(*frontMatter, Key, *yaml.Node) {
	return func(m *frontMatter, key Key, value *yaml.Node) {
		if value.Kind != yaml.ScalarNode || slices.Contains(values, value.Value) {
			return
		}
		text, hub := mustBeOneOf(key.Name, values), ""
		if source == seen {
			hub = text
		}
		m.refuse(key.Name, hub, text, fmt.Sprintf("replace %q with one of them", value.Value))
	}
}

// eachOf is oneOf for a list.
func eachOf(values []string) func(*frontMatter, Key, *yaml.Node) {
	return func(m *frontMatter, key Key, value *yaml.Node) {
		for _, item := range scalars(value) {
			if !slices.Contains(values, item) {
				m.refuse(key.Name, "", fmt.Sprintf("%s has no value %q", key.Name, item), suggest(item, values))
			}
		}
	}
}

// suggest names the value that was probably meant, or all of them.
func suggest(text string, values []string) string {
	if near := nearest.Key(text, values); near != "" {
		return "write " + near
	}
	return "write some of " + enumeration(values)
}

// scalars returns the texts of a list, or of a value that stands for a list of one.
func scalars(value *yaml.Node) (texts []string) {
	items := []*yaml.Node{value}
	if value.Kind == yaml.SequenceNode {
		items = value.Content
	}
	for _, item := range items {
		if item = resolve(item); item.Kind == yaml.ScalarNode {
			texts = append(texts, item.Value)
		}
	}
	return texts
}

// emojis are the code points with the Unicode property Emoji, by blocks, without digits, # and *.
var emojis = &unicode.RangeTable{
	R16: []unicode.Range16{
		{0xa9, 0xae, 5}, {0x200d, 0x200d, 1}, {0x203c, 0x2049, 13}, {0x20e3, 0x20e3, 1}, {0x2122, 0x2139, 23}, {0x2194, 0x21aa, 1},
		{0x231a, 0x231b, 1}, {0x2328, 0x2328, 1}, {0x23cf, 0x23cf, 1}, {0x23e9, 0x23fa, 1}, {0x24c2, 0x24c2, 1}, {0x25aa, 0x25fe, 1},
		{0x2600, 0x27bf, 1}, {0x2934, 0x2935, 1}, {0x2b05, 0x2b55, 1}, {0x3030, 0x303d, 13}, {0x3297, 0x3299, 2}, {0xfe0f, 0xfe0f, 1},
	},
	R32:         []unicode.Range32{{0x1f000, 0x1faff, 1}, {0xe0020, 0xe007f, 1}},
	LatinOffset: 1,
}

func (m *frontMatter) checkEmoji(key Key, value *yaml.Node) {
	text := strings.TrimSpace(value.Value)
	text = keycaps.ReplaceAllString(text, "")
	if value.Kind == yaml.ScalarNode && strings.ContainsFunc(text, func(r rune) bool { return !unicode.Is(emojis, r) }) {
		m.refuse(key.Name, "", fmt.Sprintf("emoji %q has other characters than emojis", value.Value), "write one emoji, such as 🚀")
	}
}

var keycaps = lazyregexp.New("[0-9#*]\ufe0f?\u20e3")

func (m *frontMatter) checkShortDescription(key Key, value *yaml.Node) {
	const most = 60
	if length := len(utf16.Encode([]rune(value.Value))); length > most { // as JavaScript counts
		m.refuse(key.Name, `"short_description" length must be less than or equal to 60 characters long`, "", fmt.Sprintf("remove %d of its %d characters", length-most, length))
	}
}

func (m *frontMatter) checkBasePath(key Key, value *yaml.Node) {
	if value.Kind == yaml.ScalarNode && !strings.HasPrefix(value.Value, "/") {
		m.refuse(key.Name, "", fmt.Sprintf("base_path %q does not begin with /", value.Value), "write base_path: /"+value.Value)
	}
}

func (m *frontMatter) checkHardware(key Key, value *yaml.Node) {
	if value.Kind == yaml.ScalarNode && !hardware.MatchString(value.Value) {
		m.warn(IgnoredValue, m.line(key.Name), key.Name, fmt.Sprintf("suggested_hardware %q is no hardware of the Hub known to spacehost", value.Value), "write zero-a10g for ZeroGPU")
	}
}

// noteHardware is about a key that authors take for the choice of hardware.
func (m *frontMatter) noteHardware(key Key, _ *yaml.Node) {
	m.add(Finding{Code: UnknownKey, Line: m.line(key.Name), Key: key.Name, Note: true, Problem: "hardware has no effect on the Hub: only `gradio deploy` reads it",
		Fix: "choose the hardware in the Space's settings; suggested_hardware: zero-a10g offers ZeroGPU to duplicates"})
}

func (m *frontMatter) checkStorage(key Key, _ *yaml.Node) {
	m.warn(IgnoredValue, m.line(key.Name), key.Name, "suggested_storage has no effect: persistent storage no longer exists on the Hub", "remove it, and keep files in a dataset or a bucket")
}

func (m *frontMatter) checkExpiration(key Key, value *yaml.Node) {
	var minutes int
	if value.Decode(&minutes) == nil && minutes > 43200 {
		m.refuse(key.Name, "", fmt.Sprintf("hf_oauth_expiration_minutes %d is more than 43200, which is 30 days", minutes), "write 43200 or less")
	}
}

func (m *frontMatter) checkHeaders(key Key, value *yaml.Node) {
	var table map[string]string
	if value.Decode(&table) != nil {
		return // the reader has warned
	}
	for _, name := range slices.Sorted(maps.Keys(table)) {
		values, known := customHeaders[name]
		switch {
		case !known:
			m.refuse(key.Name, "", fmt.Sprintf("custom_headers may not set %q", name), suggest(name, slices.Sorted(maps.Keys(customHeaders))))
		case !slices.Contains(values, table[name]):
			m.refuse(key.Name, "", fmt.Sprintf("custom_headers: %s may not be %q", name, table[name]), "write one of "+enumeration(values))
		}
	}
}

// IsCustomHeader reports whether the Hub accepts this header under custom_headers, and thus adds it to all responses.
func IsCustomHeader(name, value string) bool { return slices.Contains(customHeaders[name], value) }

func (m *frontMatter) checkPreload(key Key, value *yaml.Node) {
	for _, item := range scalars(value) {
		if _, err := ParsePreload(item); err != nil {
			m.warn(BadPreload, m.line(key.Name), key.Name, err.Error(), "the build fails; write repo, repo file,file or repo file,file commit")
		}
	}
}

func (m *frontMatter) checkLicenseName(key Key, value *yaml.Node) {
	if value.Kind == yaml.ScalarNode && !licenseName.MatchString(value.Value) {
		m.refuse(key.Name, "", fmt.Sprintf("license_name %q has other characters than a-z, 0-9, - and .", value.Value), "write it in lower case, with - for a space")
	}
}

var licenseName = lazyregexp.New(`^[a-z0-9-.]+$`)

func (m *frontMatter) checkLicenseLink(key Key, value *yaml.Node) {
	text := value.Value
	link, err := url.Parse(text)
	if value.Kind == yaml.ScalarNode && text != "LICENSE" && text != "LICENSE.md" && (err != nil || link.Scheme == "") {
		m.refuse(key.Name, "", fmt.Sprintf("license_link %q is neither LICENSE, LICENSE.md nor a URI", text), "write one of these")
	}
}

// checkLicense checks an identifier, or a list of them. The Hub's sentence ends in "array" for the list.
func (m *frontMatter) checkLicense(key Key, value *yaml.Node) {
	for _, item := range scalars(value) {
		if !slices.Contains(licenses, item) {
			fix := "write license: other, with license_name and license_link"
			if near := nearest.Key(item, licenses); near != "" {
				fix = "write license: " + near
			}
			m.refuse(key.Name, mustBeOneOf(key.Name, append(slices.Clone(licenses), "array")), fmt.Sprintf("license %q is none of its %d identifiers", item, len(licenses)), fix)
		}
	}
}

// unquoted warns about a version that YAML reads as a number: the Hub sees the number, and 3.10 becomes 3.1 (hub-docs#1928).
func unquoted(code Code) func(*frontMatter, Key, *yaml.Node) {
	return func(m *frontMatter, key Key, value *yaml.Node) { m.checkUnquoted(code, key, value) }
}

func (m *frontMatter) checkUnquoted(code Code, key Key, value *yaml.Node) {
	if tag := value.ShortTag(); value.Kind != yaml.ScalarNode || tag != "!!float" && tag != "!!int" {
		return
	}
	number, err := strconv.ParseFloat(value.Value, 64)
	if err != nil {
		return
	}
	if text := strconv.FormatFloat(number, 'f', -1, 64); text != value.Value {
		m.warn(code, m.line(key.Name), key.Name, fmt.Sprintf("%s is a number: here it is %s, on the Hub %s (hub-docs#1928)", key.Name, value.Value, text), "put it in quotes")
	}
}
