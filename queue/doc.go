// Package queue decides which submitted call of a Space runs next and delivers the results to its visitors.
//
// # Terms
//
//   - An Event is one submitted call, from its join to its end.
//   - A Session is one client connection. It buffers the Messages of its Events until a stream reads them.
//   - A Message is one line of a Session's stream.
//   - A Job is the unit that the runner receives: one Event, or a batch of Events of one Endpoint.
//   - An Endpoint is one callable of a Space. Endpoints of one group share a concurrency limit.
//   - A direct call bypasses the queue. It is registered only so that its token may pay for GPU time.
//
// # Types
//
// Queue is the only entry point. Package gradioapi joins Events and reads Sessions, package worker implements Runner
// and reports Messages and ends of Events, and the host implements Payments, which ends GPU leases early. Inside, one
// goroutine (Queue.Run) owns the scheduler, which makes every decision and acts only through the interface effects.
//
// Order, ranks, estimates and texts are those of Gradio (gradio/queueing.py). Execution happens in the Space's process.
//
// # Event states
//
//	Join ──refused──▶ (error to the caller)
//	  │
//	  ├──cache hit─────────────────────────────┐
//	  ▼                                        ▼
//	waiting ──dispatch, limit free──▶ running ──Completed──▶ completed ──Done──▶ ended
//	  │  ▲                               │
//	  │  └── Attach: a restarted Space   ├── Done without Completed ──▶ ended, with a failure
//	  │      still has the Endpoint      ├── Cancel ──▶ completed (the visitor receives "cancelled"), Runner.Cancel
//	  │                                  ├── Leave ──▶ abandoned: it runs on, its Messages are dropped
//	  │                                  └── Lost, Attach ──▶ ended, with a failure
//	  ├── Cancel ──▶ ended
//	  ├── Leave ──▶ ended
//	  └── Lost, if only the exited process held the body ──▶ ended, with a failure
//
// # Session states
//
//	expecting ──last pending Event delivered──▶ closing ──close_stream──▶ idle ──TTL──▶ removed
//	    ▲                                          │                        │
//	    └──────────────── a new Event joins ───────┴────────────────────────┘
//
// A Session whose client stops reading is evicted: it is removed from every state, and readers get io.ErrUnexpectedEOF.
//
// # Failures
//
// When the Space's process exits (Lost), running Events end with a failure and waiting Events stay for the next Attach.
// After Run has returned, all methods answer as if no Space had ever attached, except Session, SessionOf and ManifestAt: they return the
// last state, so that a stream which is opened late has the end of its Event.
package queue
