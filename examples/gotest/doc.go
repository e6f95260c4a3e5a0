// Package gotest shows how to test a Space with Go: StartSpace in space_test.go starts one under spacehost on a
// simulated GPU, and call_test.go calls it over plain HTTP. Copy space_test.go beside your own tests.
//
// The binary is $SPACEHOST, or built from this module. The interpreter is $SPACEHOST_TEST_PYTHON, which must have the
// Space's packages. Without it, spacehost creates the Space's environment once in $SPACEHOST_TEST_CACHE (default: the
// user's cache folder).
package gotest
