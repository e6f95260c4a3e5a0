package space

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"spacehost/internal/lazyregexp"
)

// space returns the Space that m describes. Display keys are read leniently. A wrong value of a key that decides how
// the Space is built and run is a *ConfigError.
func (m *frontMatter) space(dir string) (*Space, error) {
	s := &Space{Dir: dir, Name: NameOf(dir)}
	s.ID = "local/" + s.Name
	m.fillDisplay(s)
	m.applyRules()
	if err := m.fillRun(s); err != nil {
		return nil, err
	}
	return s, nil
}

func (m *frontMatter) fillDisplay(s *Space) {
	s.Title = orElse(m.text("title"), filepath.Base(s.Dir))
	s.Emoji = m.text("emoji")
	s.ColorFrom, s.ColorTo = m.text("colorFrom"), m.text("colorTo")
	s.Thumbnail = m.text("thumbnail")
	s.ShortDescription = m.text("short_description")
	s.License = strings.Join(m.list("license"), ", ")
	s.Header = m.text("header")
	s.BasePath = m.text("base_path")
	s.FullWidth = m.flag("fullWidth", true)
	s.Pinned = m.flag("pinned", false)
	s.DisableEmbedding = m.flag("disable_embedding", false)
	s.SuggestedHardware = m.text("suggested_hardware")
	s.SuggestedStorage = m.text("suggested_storage")
	s.Models, s.Datasets, s.Tags = m.list("models"), m.list("datasets"), m.list("tags")
	s.CustomHeaders = m.table("custom_headers")
	s.PreloadFromHub = m.list("preload_from_hub")
	s.HFOAuth = m.flag("hf_oauth", false)
	s.HFOAuthScopes = m.list("hf_oauth_scopes")
	s.HFOAuthExpirationMinutes = m.number("hf_oauth_expiration_minutes", 480)
	s.HFOAuthAuthorizedOrg = m.list("hf_oauth_authorized_org")
}

func (m *frontMatter) fillRun(s *Space) (err error) {
	if s.SDK, err = m.sdk(); err != nil {
		return err
	}
	if s.SDKVersion, err = m.sdkVersion(); err != nil {
		return err
	}
	if s.PythonVersion, err = m.pythonVersion(); err != nil {
		return err
	}
	if s.StartupTimeout, err = m.startupTimeout(); err != nil {
		return err
	}
	appFile, err := m.exact("app_file", "name one file, such as app_file: app.py")
	s.AppFile = filepath.Clean(orElse(appFile, defaultAppFile))
	return err
}

// exact returns the text of a key that decides how the Space runs. Another kind of value is an error.
func (m *frontMatter) exact(key, next string) (string, error) {
	before := len(m.findings)
	text := m.text(key)
	if len(m.findings) > before {
		return "", m.configError(key, key+" is not a single text", next)
	}
	return text, nil
}

func (m *frontMatter) configError(key, problem, next string) error {
	return &ConfigError{Code: codeOf(key), Key: key, Line: m.line(key), Problem: problem, Next: next}
}

// ownLimit is configError for a value that the Hub accepts.
func (m *frontMatter) ownLimit(key, problem, next string) error {
	return &ConfigError{Code: codeOf(key), Key: key, Line: m.line(key), Problem: problem, Next: next, Own: true}
}

// codeOf returns the kind of an error about a key that decides how the Space is built and run.
func codeOf(key string) Code {
	switch key {
	case "sdk":
		return BadSDK
	case "sdk_version":
		return BadVersion
	case "python_version":
		return BadPython
	case "app_file":
		return BadAppFile
	}
	return IgnoredValue
}

func (m *frontMatter) sdk() (string, error) {
	const next = "write sdk: gradio, or run this Space on the Hub"
	sdk, err := m.exact("sdk", next)
	if err != nil {
		return "", err
	}
	if sdk == "" && len(m.fields) > 0 {
		m.add(Finding{Code: BadSDK, Key: "sdk", Hub: "Missing configuration in README", Problem: "README.md has no sdk: using gradio", Fix: "write sdk: gradio, which the Hub requires"})
	}
	if sdk = orElse(sdk, defaultSDK); sdk != defaultSDK {
		refusal := m.configError
		if sdk == "docker" || sdk == "static" || sdk == "streamlit" {
			refusal = m.ownLimit
		}
		return "", refusal("sdk", fmt.Sprintf("sdk is %q, but spacehost runs only Gradio Spaces", sdk), next)
	}
	return sdk, nil
}

var (
	// The part of PEP 440 that Gradio's releases use: 5.49.1, 6.0, 5.0.0b3, 5.0.0-beta.2, 6.0.0.dev4.
	gradioVersion = lazyregexp.New(`^\d+\.\d+(\.\d+)?([-.]?(a|b|rc|alpha|beta|dev)[-.]?\d+)?$`)
	pythonVersion = lazyregexp.New(`^3\.(\d+)(\.\d+)?$`)
)

func (m *frontMatter) sdkVersion() (string, error) {
	const next = "write a version of Gradio, such as sdk_version: 6.31.0"
	version, err := m.exact("sdk_version", next)
	if err == nil && version == "" && len(m.fields) > 0 {
		m.add(Finding{Code: NoVersion, Line: m.line("sdk"), Key: "sdk_version", Note: true, Fix: next,
			Problem: "README.md has no sdk_version: each build takes the newest Gradio, which may differ from the one that the app was written for"})
	}
	if err != nil || version == "" {
		return "", err
	}
	if !gradioVersion.MatchString(version) {
		return "", m.configError("sdk_version", fmt.Sprintf("sdk_version %q is not a version of Gradio", version), next)
	}
	m.warnVersion(version)
	return version, nil
}

// warnVersion warns about two values that work here but may fail on the Hub.
func (m *frontMatter) warnVersion(version string) {
	parts := strings.Split(version, ".")
	if len(parts) == 2 { // huggingface_hub#3244: "configuration error" for 3.27
		m.warn(BadVersion, m.line("sdk_version"), "sdk_version", fmt.Sprintf("sdk_version %s has only two parts, which the Hub has rejected", version), "write all three")
	}
	if major, _ := strconv.Atoi(parts[0]); major < 4 { // spaces-zerogpu.md, "Supported Versions"
		m.warn(OldVersion, m.line("sdk_version"), "sdk_version", fmt.Sprintf("sdk_version %s is older than 4, the first Gradio that ZeroGPU supports", version), "choose 4 or newer")
	}
}

// pythonVersion checks python_version: `3.x` or `3.x.x` according to the Hub's reference, and 3.10 or newer, which
// the host's runner and the spaces package need (ZeroGPU itself has 3.10.13 and 3.12.12).
func (m *frontMatter) pythonVersion() (string, error) {
	const next = `write python_version: "3.10", or newer`
	version, err := m.exact("python_version", next)
	if err != nil || version == "" {
		return "", err
	}
	found := pythonVersion.FindStringSubmatch(version)
	if found == nil {
		return "", m.configError("python_version", fmt.Sprintf("python_version %q is not a version like 3.10 or 3.10.13", version), next)
	}
	if minor, err := strconv.Atoi(found[1]); err != nil || minor < 10 {
		return "", m.ownLimit("python_version", fmt.Sprintf("python_version %s is older than 3.10, which spacehost needs", version), next)
	}
	return version, nil
}

// The reference says only "any valid duration (like `1h`, `30m`) is acceptable".
var (
	durations    = lazyregexp.New(`^(?:\d+(?:\.\d+)?\s*[a-z]+\s*)+$`)
	durationPart = lazyregexp.New(`(\d+(?:\.\d+)?)\s*([a-z]+)`)
	units        = map[string]time.Duration{
		"s": time.Second, "sec": time.Second, "secs": time.Second, "second": time.Second, "seconds": time.Second,
		"m": time.Minute, "min": time.Minute, "mins": time.Minute, "minute": time.Minute, "minutes": time.Minute,
		"h": time.Hour, "hr": time.Hour, "hrs": time.Hour, "hour": time.Hour, "hours": time.Hour,
		"d": 24 * time.Hour, "day": 24 * time.Hour, "days": 24 * time.Hour,
	}
)

// maxStartup prevents 20000000000000m, the value of a real Space, from becoming a negative duration.
const maxStartup = 30 * 24 * time.Hour

func (m *frontMatter) startupTimeout() (time.Duration, error) {
	const next = "write a duration, such as startup_duration_timeout: 1h"
	text, err := m.exact("startup_duration_timeout", next)
	if err != nil || text == "" {
		return defaultStartupTimeout, err
	}
	d, ok := duration(strings.ToLower(text))
	if !ok {
		return 0, m.ownLimit("startup_duration_timeout", fmt.Sprintf("startup_duration_timeout %q is not a duration between 1s and 30 days", text), next)
	}
	return d, nil
}

// duration parses 30m, 1h, 1h30m, 1.5h, 2 hours, 1d.
func duration(text string) (time.Duration, bool) {
	if !durations.MatchString(text) {
		return 0, false
	}
	var sum float64
	for _, part := range durationPart.FindAllStringSubmatch(text, -1) {
		n, err := strconv.ParseFloat(part[1], 64)
		unit, known := units[part[2]]
		if err != nil || !known {
			return 0, false
		}
		sum += n * float64(unit)
	}
	if sum < float64(time.Second) || sum > float64(maxStartup) {
		return 0, false
	}
	return time.Duration(sum), true
}

func orElse(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}
