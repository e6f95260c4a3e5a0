package main

import (
	"fmt"
	"testing"

	"github.com/chromedp/cdproto/page"

	"spacehost/internal/dashboard"
)

// playHost lets a test act as the host of a page. asked are the requests except the stream. hold() keeps the answers to changes and
// to older lines until release(). push(topic, value) sends an event. amend(text) may change what the stream sends.
const playHost = `
globalThis.asked = [];
globalThis.answers = {};
globalThis.amend = (text) => text;
globalThis.release = () => {};
globalThis.hold = () => (globalThis.held = new Promise((done) => (globalThis.release = () => (globalThis.held = null, done()))));
{
	const real = fetch;
	const write = (value) => new TextEncoder().encode(value);
	globalThis.fetch = async (path, options = {}) => {
		const at = String(path).replace(/^api\/spacehost\//, "");
		if (at === "changes") {
			const answer = await real(path, options);
			const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
			return new Response(new ReadableStream({
				async start(stream) {
					globalThis.push = (topic, value) => stream.enqueue(write("event: " + topic + "\nid: x\ndata: " + JSON.stringify(value) + "\n\n"));
					for (let rest = ""; ; ) {
						const { value, done } = await reader.read();
						if (done) return stream.close();
						rest += value;
						const end = rest.lastIndexOf("\n\n") + 2; // a long event arrives in parts
						if (end < 2) continue;
						const text = amend(rest.slice(0, end));
						rest = rest.slice(end);
						for (const block of text.split("\n\n")) {
							const topic = /^event: (\w+)/.exec(block)?.[1];
							if (topic) (globalThis.topics ??= {})[topic] = JSON.parse(/\ndata: (.*)$/.exec(block)[1]);
						}
						stream.enqueue(write(text));
					}
				},
			}), { status: answer.status });
		}
		const method = options.method ?? "GET";
		asked.push(method + " " + at + (options.body ? " " + options.body : ""));
		if (globalThis.held && (method !== "GET" || at.includes("before="))) await held;
		const canned = Object.entries(answers).find(([begin]) => (method + " " + at).startsWith(begin));
		return canned ? new Response(JSON.stringify(canned[1])) : real(path, options);
	};
}
globalThis.pause = (ms = 50) => new Promise((done) => setTimeout(() => requestAnimationFrame(() => done(true)), ms));
globalThis.button = (text, within = document) => [...within.querySelectorAll("button")].find((b) => b.checkVisibility() && b.innerText === text);
globalThis.type = (selector, text) => {
	const input = document.querySelector(selector);
	input.value = text;
	input.dispatchEvent(new Event("input", { bubbles: true }));
	return input;
};
globalThis.requested = (begin) => asked.filter((a) => a.startsWith(begin)).length;
globalThis.until = async (condition) => {
	for (let i = 0; i < 60; i++) {
		const value = condition();
		if (value) return value;
		await pause();
	}
	throw new Error("not within 3 s: " + condition + "; the page shows " + document.body.innerText.slice(0, 600));
};
`

// play opens a story in a browser whose page is under control of playHost, and of more.
func play(t *testing.T, of story, more string) *studio {
	t.Helper()
	s := openStudio(t)
	s.do(t, call(page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: playHost + more}))
	s.open(t, of)
	return s
}

// steps runs a script that returns a list of faults.
func (s *studio) steps(t *testing.T, script string) {
	t.Helper()
	for _, fault := range evaluate[[]string](t, s, "(async () => { const faults = []; const want = (is, text) => is || faults.push(text);"+script+"; return faults })()") {
		t.Error(fault)
	}
	if thrown := s.exceptions(); len(thrown) > 0 {
		t.Errorf("uncaught exceptions: %q", thrown)
	}
}

// playPeople answers what the pages of people read besides the canned answers, and opens the page of one.
const playPeople = `
answers["GET admin/tiers"] = [{ name: "free", quotaSeconds: 210 }, { name: "team", quotaSeconds: 900 }];
answers["GET admin/people/cleo/tokens"] = ["laptop", "phone"].map((label) => ({ id: label, label, person: "cleo", scope: "all", createdAt: "2026-11-01T00:00:00Z", expiresAt: null }));
globalThis.openCleo = async () => {
	location.hash = "people/cleo";
	await until(() => document.querySelector(".card select[name=tier] option[value=free]"));
};`

// TestTypedOverridesStay types overrides of a person while events arrive, and saves them.
func TestTypedOverridesStay(t *testing.T) {
	s := play(t, story{page: "people", role: dashboard.Admin, state: filled}, playPeople)
	s.steps(t, `
		await openCleo();
		const runs = type("input[name=runs]", "7"), quota = type("input[name=quotaSeconds]", "");
		const tier = document.querySelector(".card select[name=tier]");
		tier.value = "free";
		tier.dispatchEvent(new Event("change", { bubbles: true }));
		push("people", topics.people.map((p) => ({ ...p, lastSeenAt: "2026-11-30T14:04:00Z", tokens: 3 })));
		await pause(200);
		want(document.querySelector("input[name=runs]") === runs, "the form is another one after an event");
		want(runs.value === "7" && quota.value === "" && tier.value === "free", "after an event the form has runs " + runs.value + ", quota " + quota.value + ", tier " + tier.value);
		answers["PATCH admin/people/cleo"] = {};
		button("Save").click();
		await until(() => requested("PATCH"));
		const sent = asked.find((a) => a.startsWith("PATCH"));
		want(sent === 'PATCH admin/people/cleo {"tier":"free","runs":7,"back":["quota"]}', "sent: " + sent);
		push("people", topics.people.map((p) => (p.name === "cleo" ? { ...p, tier: "free", runs: 8, quotaSeconds: null } : p)));
		await until(() => document.querySelector("input[name=runs]").value === "8"); // another admin was faster
	`)
}

// TestAmountIsNamedByKind reads the label of the amount for each kind of adjustment.
func TestAmountIsNamedByKind(t *testing.T) {
	s := play(t, story{page: "people", role: dashboard.Admin, state: filled}, playPeople)
	s.steps(t, `
		await openCleo();
		const kind = [...document.querySelectorAll("select")].find((e) => e.querySelector("[value=credit]"));
		for (const [value, label] of [["grant", "Seconds to grant: cleo"], ["credit", "Seconds of credits to add: cleo"], ["runs", "Runs to grant: cleo"]]) {
			kind.value = value;
			kind.dispatchEvent(new Event("change", { bubbles: true }));
			await pause();
			want(document.querySelector("input[name=amount]").ariaLabel === label, value + ": " + document.querySelector("input[name=amount]").ariaLabel);
		}
	`)
}

// TestPeopleReadSparingly counts the requests for usage at the start, and keeps the table of tokens while it is read again.
func TestPeopleReadSparingly(t *testing.T) {
	s := play(t, story{page: "people", role: dashboard.Admin, state: filled}, playPeople+`
		let moment = Date.now();
		Date.now = () => moment++;`)
	s.steps(t, `
		await openCleo();
		await pause(300);
		want(requested("GET admin/usage") === 2, requested("GET admin/usage") + " requests for the usage, want 2");
		const table = await until(() => document.querySelector(".people table"));
		const id = table.querySelector("code").innerText;
		answers["DELETE admin/tokens/"] = { id };
		[...table.querySelectorAll("button")].find((b) => b.innerText === "Revoke").click();
		await until(() => document.querySelector(".confirm .danger"));
		const before = requested("GET admin/people/cleo/tokens");
		document.querySelector(".confirm .danger").click();
		await until(() => requested("GET admin/people/cleo/tokens") > before);
		await pause(200);
		want(document.querySelector(".people table") === table, "the table of tokens was removed while it was read again");
	`)
}

// TestHiddenPeopleRest counts the requests of a hidden page. Its timers run a hundred times as fast.
func TestHiddenPeopleRest(t *testing.T) {
	s := play(t, story{page: "people", role: dashboard.Admin, state: filled}, playPeople+`
		const slow = setInterval;
		globalThis.setInterval = (run, ms) => slow(run, ms / 100);
		globalThis.away = false;
		Object.defineProperty(document, "hidden", { get: () => away });`)
	s.steps(t, `
		const first = requested("GET admin/quota");
		await until(() => requested("GET admin/quota") > first + 1);
		away = true;
		await pause(200);
		const rest = requested("GET admin/quota");
		await pause(500);
		want(requested("GET admin/quota") === rest, "a hidden page reads again");
		away = false;
		document.dispatchEvent(new Event("visibilitychange"));
		await pause();
		want(requested("GET admin/quota") > rest, "a page that is shown again does not read");
	`)
}

// TestReturnAllAsks returns the drained GPU of the line: the question has the numbers, and one that the host has closed stays closed.
func TestReturnAllAsks(t *testing.T) {
	s := play(t, story{page: "line", role: dashboard.Admin, state: filled}, "")
	s.steps(t, `
		push("gpus", topics.gpus.map((g) => (g.index === 0 ? { ...g, drained: { operator: false, reason: "Xid 79" }, driverErrors: [{ xid: 79, condemns: true, count: 1, at: "2026-11-30T14:00:00Z" }] } : g)));
		await pause(200);
		answers["POST admin/gpu/"] = {};
		button("Return all GPUs").click();
		await until(() => document.querySelector("dialog[open]")?.innerText.includes("The drain of 1 GPU ends. Hardware errors keep closed: GPU 0."));
		want(requested("POST") === 0, "GPUs were returned without a question");
		button("Return all GPUs", document.querySelector("dialog[open]")).click();
		await until(() => document.body.innerText.includes("1 GPU is lent again."));
		want(asked.filter((a) => a.startsWith("POST")).join() === 'POST admin/gpu/return {"uuid":"' + topics.gpus[2].uuid + '"}', asked.filter((a) => a.startsWith("POST")).join());
		button("Drain all GPUs").click();
		await until(() => document.querySelector("dialog[open]")?.innerText.includes("2 GPUs are drained; 2 GPUs are drained already and stay as they are."));
		button("Drain all GPUs", document.querySelector("dialog[open]")).click();
		await until(() => requested("POST admin/gpu/drain") === 2);
	`)
}

// TestEndDialogStays ends a call that gets a GPU while its dialog is open.
func TestEndDialogStays(t *testing.T) {
	s := play(t, story{page: "line", role: dashboard.Admin, state: filled}, "")
	s.steps(t, `
		const waiting = topics.leases.open.find((l) => l.state === "waiting");
		[...document.querySelectorAll("tbody tr")].find((r) => r.innerText.includes("score")).querySelector("button").click();
		const dialog = await until(() => document.querySelector("dialog[open]"));
		want(dialog.innerText.includes("leaves the line"), dialog.innerText);
		dialog.querySelector("input").value = "for a demo";
		const first = topics.leases.open.filter((l) => l.state === "waiting").sort((a, b) => a.rank - b.rank)[0].lease;
		push("leases", { ...topics.leases, open: topics.leases.open.map((l) => (l.lease === first ? { ...l, state: "active", slot: 3 } : l)) });
		await pause(200);
		want(dialog.isConnected && dialog.open && dialog.querySelector("input").value === "for a demo", "the dialog is gone when the call gets a GPU");
		want(dialog.innerText.includes("Its worker is killed"), dialog.innerText);
		answers["POST admin/lease/end"] = { ...waiting, identity: "user:ben", space: "shown" };
		dialog.querySelector(".danger").click();
		await until(() => document.body.innerText.includes("The call of ben in shown is ended."));
		want(asked.includes('POST admin/lease/end ' + JSON.stringify({ lease: first, reason: "for a demo" })), asked.join("\n"));
	`)
}

// TestCommandsAskAndRunOnce restarts and pauses a Space. A second click while a command is pending sends nothing.
func TestCommandsAskAndRunOnce(t *testing.T) {
	s := play(t, story{page: "spaces", at: "sana-sprint", role: dashboard.Admin, state: filled}, "")
	s.steps(t, `
		for (const name of ["Restart", "Restart now", "Rebuild"]) {
			button(name).click();
			await until(() => document.querySelector(".confirm"));
			want(requested("POST") === 0, name + " does not ask");
			button("Cancel").click();
			await until(() => !document.querySelector(".confirm"));
		}
		answers["POST admin/restart"] = { drainSeconds: 5 };
		button("Restart").click();
		const yes = await until(() => document.querySelector(".confirm .danger"));
		hold();
		yes.click();
		yes.click();
		await pause();
		want(yes.disabled && button("Rebuild").disabled && button("Pause").disabled, "commands are offered while one is pending");
		yes.click();
		release();
		await until(() => document.body.innerText.includes("sana-sprint restarts."));
		want(requested("POST admin/restart") === 1, requested("POST admin/restart") + " restarts");
		button("Pause").click();
		const form = await until(() => document.querySelector(".commands form"));
		answers["POST admin/space/pause"] = { drainSeconds: 5 };
		hold();
		form.requestSubmit();
		form.requestSubmit();
		await pause();
		release();
		await until(() => !document.querySelector(".commands form"));
		want(requested("POST admin/space/pause") === 1, requested("POST admin/space/pause") + " pauses");
	`)
}

// TestLogIsNotDrawnAgain lets events arrive at the page of a Space with a log, and reads older lines with a double click.
func TestLogIsNotDrawnAgain(t *testing.T) {
	s := play(t, story{page: "spaces", at: "sana-sprint", role: dashboard.Admin, state: filled}, `
		globalThis.written = 0;
		const { get } = Object.getOwnPropertyDescriptor(Intl.DateTimeFormat.prototype, "format");
		Object.defineProperty(Intl.DateTimeFormat.prototype, "format", { get() { written++; return get.call(this); } });
		answers["GET admin/space/log"] = { before: "1-0", after: "", lines: Array.from({ length: 300 }, (_, i) => ({ time: "2026-11-30T14:00:00Z", stream: "stdout", text: "line " + i })) };`)
	s.steps(t, `
		await until(() => document.querySelectorAll(".log .line").length === 300 && document.querySelector(".chart canvas"));
		want(document.querySelector(".log time").innerText === "14:00:00" && document.querySelector(".log time").title === "30/11/2026, 14:00:00", document.querySelector(".log time").outerHTML);
		await pause(200);
		written = 0;
		let drawn = 0;
		const clear = CanvasRenderingContext2D.prototype.clearRect;
		CanvasRenderingContext2D.prototype.clearRect = function (...at) { drawn++; return clear.apply(this, at); };
		for (let i = 0; i < 5; i++) {
			push("gpus", topics.gpus);
			await pause();
		}
		want(written < 300, "five events write " + written + " times");
		want(drawn === 0, "five events draw the charts " + drawn + " times");
		const before = asked.length;
		hold();
		button("Older lines").click();
		button("Older lines").click();
		await pause();
		release();
		await until(() => document.querySelectorAll(".log .line").length === 600);
		want(asked.slice(before).filter((a) => a.includes("before=")).length === 1, "a double click reads older lines twice");
	`)
}

// TestReadOnlyPages opens the pages of an admin whose token only reads: no button changes something, and a sentence explains it.
func TestReadOnlyPages(t *testing.T) {
	s := openStudio(t)
	s.do(t, call(page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{
		Source: playHost + `amend = (text) => text.replace('"scope":"all"', '"scope":"read"');`}))
	changing := "Return,Drain,Drain all GPUs,Return all GPUs,End …,Cancel the drain,Restart,Restart now,Rebuild,Pause,Resume,Apply"
	for _, of := range []story{{page: "gpus"}, {page: "line"}, {page: "spaces", at: "sana-sprint"}} {
		of.role, of.state = dashboard.Admin, filled
		s.open(t, of)
		s.steps(t, fmt.Sprintf(`
			want(document.body.innerText.includes("You have signed in with a token that only reads."), %[1]q + " does not explain why it has no buttons");
			want(!%[2]q.split(",").some((text) => button(text)), %[1]q + " has a button that changes something");`, of.name(), changing))
	}
}

// TestChartLoadsAgain lets the program of the charts fail once.
func TestChartLoadsAgain(t *testing.T) {
	s := play(t, story{page: "spaces", at: "sana-sprint", role: dashboard.Admin, state: filled}, `
		globalThis.broken = true;
		const append = Element.prototype.append;
		Element.prototype.append = function (...all) {
			for (const one of all) if (broken && one.src) one.src = "app/vendor/none.js";
			return append.apply(this, all);
		};`)
	s.steps(t, `
		await until(() => document.body.innerText.includes("The chart cannot be drawn"));
		want(document.querySelectorAll("script[src*=none]").length === 0, "the script that failed stays");
		broken = false;
		button("Try again").click();
		await until(() => document.querySelector(".chart canvas"));
	`)
}
