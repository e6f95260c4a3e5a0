// Package notify delivers notices about a host to webhooks: a Space is down, a GPU is lost, the disk is low.
//
// # Terms
//
// A [Notice] is one event for an operator or a person, of a [Kind]. A [Hook] is a URL that receives the notices of some
// kinds, as JSON or in the form of Slack. An attempt is one request; a delivery is all attempts of one notice at one hook.
//
// # Types
//
// The host creates one [Sender], gives it the hooks of each configuration with Configure, and calls Send. Send never blocks.
// Each hook has a queue and a goroutine of its own, so that a hook that does not answer delays no other one.
//
// # Requests
//
// JSON is the payload of Standard Webhooks (github.com/standard-webhooks/standard-webhooks, spec/standard-webhooks.md):
// type, timestamp and data. With a secret, webhook-id, webhook-timestamp and webhook-signature are its headers: HMAC-SHA256
// over id, timestamp and body. Each attempt is signed anew, and the id stays, so that a receiver recognizes a repetition.
//
// # Failures
//
// A network error, 408, 429 and 5xx are retried with growing pauses, and a Retry-After is obeyed, up to the time of
// [retryTime]. Other answers are final; a redirect is not followed. The oldest notice of a full queue is dropped. Each lost
// notice is logged and counted. Errors and logs never contain a URL: that of Slack is a credential. Notices that are queued
// when the host ends get one more attempt within [closeTime], or within [brokenTime] if the last attempt at their hook failed.
package notify
