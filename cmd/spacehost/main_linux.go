// Command spacehost runs an unmodified Hugging Face Gradio Space under ZeroGPU's rules.
package main

import (
	"os"

	"spacehost/internal/cli"
	"spacehost/internal/sandbox"
)

func main() {
	sandbox.MaybeRun() // returns unless the host has started this process to confine a Space
	os.Exit(cli.Main(os.Args[1:], os.Stdout, os.Stderr))
}
