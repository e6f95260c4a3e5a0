package host

import (
	"context"
	"slices"

	"spacehost/internal/build"
	"spacehost/internal/sandbox"
)

// runAtFiles runs a tool confined by Landlock. It has no layers: its cache is its own, and its access to the folder of the
// Space is that of the Space itself. A process that leaves the tool's group outlives the tool, as at this level a process of
// the Space outlives the Space.
func (c *buildConfinement) runAtFiles(ctx context.Context, tool build.Tool) error {
	cmd := build.GroupCommand(ctx, tool.Argv...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = tool.Dir, tool.Stdout, tool.Stderr
	cmd.Env = append(tool.Env, "UV_CACHE_DIR="+c.path("cache"))
	if tool.Models {
		cmd.Env = append(cmd.Env, "HF_HOME="+c.space.layer("hf"))
	}
	if tool.Held != nil {
		cmd.ExtraFiles = append(cmd.ExtraFiles, tool.Held)
	}
	rules, err := c.fileRules(tool)
	if err != nil {
		return err
	}
	if err := (sandbox.FilesSpec{FileRules: rules, Limits: c.space.processLimits()}).Start(cmd); err != nil {
		return err
	}
	return build.WaitGroup(ctx, cmd)
}

// fileRules lists what a tool may read, write and connect to.
func (c *buildConfinement) fileRules(tool build.Tool) (sandbox.FileRules, error) {
	v := &view{}
	rules := sandbox.FileRules{
		Read:    slices.Concat(systemRead(), []string{"/proc"}, tool.Read),
		Write:   slices.Concat([]string{c.path("home"), c.path("tmp"), c.path("cache")}, harmlessDevices, tool.Write),
		Connect: c.space.buildPorts(tool),
	}
	if tool.Source != "" {
		rules.Write = append(rules.Write, tool.Source)
	}
	if tool.Models {
		models := c.space.layer("hf")
		v.make(models)
		rules.Write = append(rules.Write, models)
	}
	return rules, v.err
}
