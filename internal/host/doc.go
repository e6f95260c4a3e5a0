// Package host runs one host: the process behind `spacehost run` and `spacehost serve`.
//
// # Terms
//
// A Host is one server with its Spaces, GPUs, database and control socket. A spaceRun is one Space under a Host: its
// address, environment, process and queue. The state folder holds the database, environments, logs, the control socket
// and a lock; one host at a time uses it. The ready line is the output that scripts wait for (ReadyLine, or Gradio's
// "Running on local URL"). A message (messages.go) is about a lease, a GPU or the clock, and goes to a visitor or to the screen.
// A notice (webhook_notices.go) goes to webhooks.
//
// # Types
//
// New opens everything that can fail without a Space's process, in this order: Spaces, state folder, log, tiers,
// listeners, database, containment, orphans of a crashed host, GPUs, wiring, people of the configuration. Host.Run
// recovers open leases, then builds and runs the Spaces until its context ends. Host.Close releases everything.
// internal/cli calls them, and uses OpenState to lock a state folder without a host.
//
// Host.wire creates the components: payer.Rule, lease.Broker, deviceapi.API, and one worker.Supervisor and queue.Queue
// per Space. Host.register mounts every route. wire.go lists the interfaces of other packages that Host and spaceRun
// implement.
//
// # Nodes
//
// With the key cluster, a Host is a front (cluster.go). The Place of a Space on a node is a nodePlace, which sends the folder, lets the node
// prepare it, and starts or takes over a process there. On the node, a NodeService has a node: a Host without addresses, database and
// leases, whose Spaces are started with the code for the own machine (node.go). A location is the choice of the node (location.go).
//
// # Life of a host
//
//	New -> Run: recover -> greet -> build and start Spaces -> ready line -> serve
//	                                     |                                 |
//	                                     | a Space fails to start          | ctx ends, or the server, the broker,
//	                                     |                                 | a queue or the process tracking fails
//	                                     v                                 v
//	            run: stop all, return its error           drain -> Spaces -> intake and Jobs -> leases
//	          serve: retry after 10 s to 5 min                             |
//	                                                                       v
//	                                                      Run returns -> Close: GPUs, database, listeners, log, lock
//
// A service manager is told "ready" when the addresses listen, before environments are built, and then the number of running
// Spaces and signs of life (manager.go).
//
// With `serve`, the ready line is printed once every Space runs or has failed. A later successful retry prints the URL of
// its Space.
//
// # Reload
//
// ReloadBy applies the file of `serve` again: newReload reads and compares, refuse finds what needs another host, prepare takes
// addresses, commit stores. Until commit, nothing has changed. A Space that must restart gets its next spaceState in
// spaceRun.begin, between two starts. Values that a reload changes are read through Host.settings, Host.all and the
// accessors of spaceRun, never kept.
//
// # Failure handling
//
// With `run`, the first Space that fails to start ends the host with its error; CauseOf and Explain turn it into the exit
// code and the text. With `serve`, the other Spaces continue and the failed one is retried; its address answers with the
// reason. A failed server, broker, queue or process tracking ends the host in both modes. After a crash, the next start
// ends the orphans (New) and settles the open leases (Run).
package host
