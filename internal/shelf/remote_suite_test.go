package shelf_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestRemoteSuite runs the tests of this package, and the inputs of its fuzz tests, with the files behind a link.
func TestRemoteSuite(t *testing.T) {
	for name, test := range map[string]func(*testing.T){
		"AssetPathsCannotEscape":         TestAssetPathsCannotEscape,
		"ReportedFolderMustBeAFrontend":  TestReportedFolderMustBeAFrontend,
		"AssetsAreCompressed":            TestAssetsAreCompressed,
		"Check":                          TestCheck,
		"FilesFollowGradiosRules":        TestFilesFollowGradiosRules,
		"RangesAndConditions":            TestRangesAndConditions,
		"ProgressSendsHeartbeats":        TestProgressSendsHeartbeats,
		"ProgressOfNoUpload":             TestProgressOfNoUpload,
		"UploadPathsMatchGradio":         TestUploadPathsMatchGradio,
		"RefusedUploadsLeaveNoFiles":     TestRefusedUploadsLeaveNoFiles,
		"InterruptedUploadLeavesNoFiles": TestInterruptedUploadLeavesNoFiles,
		"TruncatedUploadsLeaveNoFiles":   TestTruncatedUploadsLeaveNoFiles,
		"UploadsPassedThrough":           TestUploadsPassedThrough,
	} {
		t.Run(name, test)
	}
	replay(t, "FuzzFilePath", func(t *testing.T, in []string) { fuzzFilePath(t, in[0]) })
	replay(t, "FuzzRange", func(t *testing.T, in []string) { fuzzRange(t, in[0], in[1]) })
	replay(t, "FuzzUpload", func(t *testing.T, in []string) { fuzzUpload(t, []byte(in[0])) })
}

// replay runs a fuzz test with the inputs of its corpus.
func replay(t *testing.T, name string, test func(t *testing.T, in []string)) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join("testdata", "fuzz", name))
	if err != nil || len(entries) == 0 {
		t.Fatal(entries, err)
	}
	for _, entry := range entries {
		text, err := os.ReadFile(filepath.Join("testdata", "fuzz", name, entry.Name()))
		if err != nil {
			t.Fatal(err)
		}
		var in []string
		for _, line := range strings.Split(strings.TrimSpace(string(text)), "\n")[1:] { // after the version of the format
			_, quoted, _ := strings.Cut(strings.TrimSuffix(line, ")"), "(")
			value, err := strconv.Unquote(quoted)
			if err != nil {
				t.Fatalf("%s: %s: %v", entry.Name(), line, err)
			}
			in = append(in, value)
		}
		t.Run(name+"/"+entry.Name(), func(t *testing.T) { test(t, in) })
	}
}
