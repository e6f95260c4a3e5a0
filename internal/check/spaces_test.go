package check

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestReadSpaces reads Spaces with one fault each, and three without any that reading can find. Notes are not listed.
func TestReadSpaces(t *testing.T) {
	want := map[string][]string{
		"A-health-async-gpu":                {"G307 app.py:5"},
		"A-health-never-ending-start":       {"A606 app.py:9"},
		"A-health-no-gpu-function":          {"A305 app.py:2"},
		"A-health-no-launch":                {"A606 app.py:8"},
		"B-secret-keyerror":                 {"B601 app.py:5"},
		"C-calls-other-space-without-token": {"C507 app.py:5"},
		"C-examples-eager":                  {"C319 app.py:8"},
		"C-plain-fetch-frontend":            {"C506 app.py:18"},
		"C-three-images":                    {"C322 app.py:7"},
		"D-fastapi-route-gpu":               {"C504 app.py:14", "A311 app.py:18"},
		"E-is-available-before-spaces":      {"E301 app.py:4"},
		"E-to-cuda-before-spaces":           {"E301 app.py:4"},
		"F-int-device":                      {"F309 app.py:6", "F309 app.py:7"},
		"F-no-decorator":                    {"F308 app.py:12"},
		"F-no-import-spaces":                {"E304 app.py:4", "F308 app.py:7"},
		"F-silent-zeros":                    {"F315 app.py:13"},
		"G-cuda-tensor-return":              {"G315 app.py:7"},
		"G-lambda-arg":                      {"G312 app.py:9"},
		"G-lazy-load-inside":                {"C322 app.py:12", "G318 app.py:13"},
		"G-overstay":                        {"C322 app.py:7"},
		"G-select-data":                     {"G311 app.py:5"},
		"G-torch-compile":                   {"G314 app.py:6"},
		"H-dynamic-wrong-signature":         {"H403 app.py:4"},
		"H-string-duration":                 {"H402 app.py:4"},
	}
	notes := map[string][]string{
		"A-health-download-at-start": {"A607 app.py:5"},
		"B-global-mutation":          {"G317 app.py:8"},
		"B-hardware-cpu-duplicate":   {"B313 app.py:5"},
		"B-hardware-name":            {"B313 app.py:5", "B313 app.py:6", "B313 app.py:7", "B313 app.py:8"},
		"D-api-hidden":               {"D501 app.py:10"},
		"D-api-unnamed-lambda":       {"D502 app.py:10", "D502 app.py:11"},
		"D-fastapi-route-gpu":        {"D503 app.py:12", "C504 app.py:14", "A311 app.py:18"},
		"D-path-from-client":         {"D504 app.py:9"},
		"F-subprocess-in-gpu":        {"F311 app.py:7"},
		"G-exception":                nil,
	}
	folders, err := os.ReadDir(filepath.Join("testdata", "spaces"))
	if err != nil || len(folders) < 30 {
		t.Fatalf("%d Spaces: %v", len(folders), err)
	}
	for _, folder := range folders {
		t.Run(folder.Name(), func(t *testing.T) {
			out := read(t, filepath.Join("testdata", "spaces", folder.Name()))
			if got := places(t, out.Facts, Warning); !slices.Equal(got, want[folder.Name()]) {
				t.Errorf("findings %q, want %q", got, want[folder.Name()])
			}
			if noted, ok := notes[folder.Name()]; ok {
				if got := places(t, out.Facts, Info); !slices.Equal(got, noted) {
					t.Errorf("findings with notes %q, want %q", got, noted)
				}
			}
		})
	}
}

func TestBucketOfAFinding(t *testing.T) {
	for id, want := range map[string]string{"G307": "A", "G317": "B", "F308": "F", "H402": "H"} {
		if rule, ok := RuleByID(id); !ok || rule.Bucket() != want {
			t.Errorf("bucket of %s is %q, want %q", id, rule.Bucket(), want)
		}
	}
}
