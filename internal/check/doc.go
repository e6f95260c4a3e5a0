// Package check finds what would fail on ZeroGPU in the files of a Space, and at its simulated start and calls.
//
// # Terms
//
//   - Rule: one statement about ZeroGPU, with an identifier such as F315. Each has a page in the folder rules, which
//     holds its texts, severity and source; the page is the only place of these facts.
//   - Bucket: the kind of failure, a letter of Buckets.
//   - Stage: what must happen before a Rule can find something: read, build, run or call. Stage read runs no code of the
//     Space.
//   - Finding: one place at which a Rule applies.
//   - Fact: what one of the stages has observed, as a Rule's identifier, a place and named values. A Finding is a Fact
//     with the texts of its Rule.
//   - Report: Findings, and what was looked at and what was not.
//
// # Types
//
// Rules returns the rules. Read performs stage read: the README.md and requirements by package internal/space, and the
// Python source by a script of the standard library (folder reader). The stages run and call need a host;
// package internal/cli performs them and adds their Facts by Report.Add. Report.Apply selects, ignores and compares with a
// baseline. The formats write a Report for people (text), programs (JSON), and code review (SARIF, JUnit, GitHub, GitLab).
//
// Explain returns the sentence about a Fact that the runner of a running Space has reported. Package internal/host shows it. The
// file runtime.yaml has the words for rules whose page speaks of source code.
//
// # Failure handling
//
// A file that cannot be read or parsed becomes a Finding or an entry of NotLookedAt, never an error. Errors are the user's:
// a missing folder, an unknown rule, an unusable interpreter. The package builds on Linux, macOS and Windows.
package check
