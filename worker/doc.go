// Package worker starts, talks to and ends Python processes.
//
// A Space's interpreter is started on app.py with our runner in it (worker/runner). It says hello, takes its
// configuration, and speaks in Frames from then on:
//
//	host                          runner
//	  |<------------- hello ---------|   protocol, pid
//	  |-------------- config ------->|   secrets, port, key
//	  |<------------ manifest -------|   at every Queue.start of Gradio
//	  |-------------- start -------->|   a Job: events with their requests and bodies
//	  |<------------ message* -------|   what Gradio says, byte for byte
//	  |<------------- done ----------|   once per event
//	  |----------- cancel, gone ---->|
//	  |<----------- admitted --------|   an event that only the Space could admit
//
// Its death is seen by wait, never by the end of a pipe: a forked GPU worker can hold that open.
package worker
