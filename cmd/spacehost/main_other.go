//go:build !linux

// Command spacehost finds what would fail on ZeroGPU in a Hugging Face Space. Everything that starts a Space needs Linux.
package main

import (
	"os"

	"spacehost/internal/checkcli"
)

func main() { os.Exit(checkcli.Main(os.Args[1:], os.Stdout, os.Stderr)) }
