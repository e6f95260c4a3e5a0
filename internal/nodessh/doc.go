// Package nodessh sets up the agent of a node on another machine by ssh.
//
// # Steps
//
// [Add] looks at the machine, copies the program if that is wanted, creates a join token, writes it to the machine, starts the agent,
// and waits until the front reports the node as connected. The machine decides how the agent runs: as the packaged unit
// spacehost-node.service if systemd runs there, the unit has the right program, and the user of ssh may use sudo without a password.
// Otherwise it is a process of that user, in a session of its own.
//
// # Types and callers
//
// `spacehost node add` calls Add with a [Config]. A [Front] creates the token and knows the state of the node.
//
// # Programs on the other machine
//
// Each step is one run of ssh(1), which has the keys, names and proxies of its user. The remote command is a constant script of sh(1) with
// arguments. All of it is quoted, in one line and without a backslash, so that the login shell may also be fish or csh. The token
// and the program are written to stdin of the script: they are in no argument, which other users of the machine could read.
//
// # Failures
//
// A failed step ends Add, and the error names the machine, what ssh or the script printed, and the next step. An agent that exits
// while Add waits is noticed by a script that runs beside it; the error then has the last lines of the agent's log. Add stops nothing: an
// agent that cannot reach the front yet continues to try.
package nodessh
