package gradioapi_test

import "testing"

// TestRemoteSuite runs the tests of uploads, files and pages with the files of the Space behind a link.
func TestRemoteSuite(t *testing.T) {
	for name, test := range map[string]func(*testing.T){
		"PassedContentIsProtected":      TestPassedContentIsProtected,
		"FilesOfTheSpace":               TestFilesOfTheSpace,
		"UploadsPassedThrough":          TestUploadsPassedThrough,
		"ProgressEndsWithItsCredential": TestProgressEndsWithItsCredential,
		"UploadsOfClosedSessions":       TestUploadsOfClosedSessions,
		"UploadsAfterARestart":          TestUploadsAfterARestart,
		"UploadLimits":                  TestUploadLimits,
		"UploadOfUnknownSize":           TestUploadOfUnknownSize,
		"PassedUploadIsMarked":          TestPassedUploadIsMarked,
		"UploadsBehindALink":            TestUploadsBehindALink,
		"UploadEqualToAFileOfTheApp":    TestUploadEqualToAFileOfTheApp,
		"AssetsOfTheFrontend":           TestAssetsOfTheFrontend,
		"ReplayOfCaptures":              TestReplayOfCaptures,
		"ReplayOfCalls":                 TestReplayOfCalls,
		"ReplayOfOrigins":               TestReplayOfOrigins,
	} {
		t.Run(name, test)
	}
}
