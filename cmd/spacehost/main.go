// Command spacehost runs an unmodified Hugging Face Gradio Space under ZeroGPU's rules.
package main

import (
	"os"

	"spacehost/internal/cli"
)

func main() { os.Exit(cli.Main(os.Args[1:], os.Stdout, os.Stderr)) }
