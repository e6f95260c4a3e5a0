// Package host runs one host: the process behind `spacehost run` and `spacehost serve`.
//
// # Terms
//
// A Host is one server with its Spaces, GPUs, database and control socket. A spaceRun is one Space under a Host: its
// address, environment, process and queue. The state folder holds the database, environments, logs, the control socket
// and a lock, which one host holds.
//
// # Types
//
// New opens everything that can fail without a Space, in this order: Spaces, state folder, log, tiers, listeners,
// database, containment, orphans of a crashed host, GPUs, wiring, people of the configuration. Host.Run recovers open
// leases, then builds and runs the Spaces until its context ends. Host.Close releases everything. internal/cli calls them.
//
// wire joins the packages: it creates payer.Rule, lease.Broker and deviceapi.API. register mounts every route. Host
// implements payer.Spaces and the interfaces that internal/deviceapi, internal/hubapi, internal/console and
// internal/control declare.
//
// # Life of a host
//
//	New -> Run: recover -> greet -> build and start Spaces -> ready -> serve
//	                                     |                          |
//	                                     | a Space fails            | ctx ends
//	                                     v                          v
//	            run: stop all, return its error     intake -> Jobs -> Spaces -> leases -> database
//	          serve: retry after 10 s to 5 min
//
// # Failure handling
//
// With `run`, the first Space that fails to start ends the host with its error; CauseOf and Explain turn it into the exit
// code and the text. With `serve`, the other Spaces keep running and the failed one is retried.
package host
