// Package gotest shows a Space under Go's tests: StartSpace in space_test.go starts one under spacehost on a simulated GPU, and
// call_test.go calls it over plain HTTP. Copy space_test.go beside tests of your own.
//
// The binary is $SPACEHOST, or built from this module. The interpreter is $SPACEHOST_TEST_PYTHON, which needs the Space's packages, or
// spacehost makes the environment that the Space asks for, once, in $SPACEHOST_TEST_CACHE (default: the user's cache folder).
package gotest
