// Tests of the pages' sentences and addresses that need no browser. TestFunctionsOfPages runs them beside a copy of the pages.
import test from "node:test";
import assert from "node:assert/strict";
import { setHostNow } from "./clock.js";
import { remedyOf, when } from "./home.js";
import { pagesOf, routeOf } from "./pages.js";
import { redeemLink } from "./session.js";
import { hasEnded } from "./tokens.js";
import { relative, words } from "./words.js";

const now = Date.parse("2026-11-20T12:00:00Z");
const after = (seconds) => new Date(now + 1000 * seconds).toISOString();

test("an address that is not encoded opens its page", () => {
	assert.deepEqual(routeOf("#spaces/100%"), { name: "spaces", detail: "100%" });
	assert.deepEqual(routeOf("#spaces/a%20b/c"), { name: "spaces", detail: "a b/c" });
	assert.deepEqual(routeOf(""), { name: "home", detail: "" });
});

test("the page of nodes is for admins of a host that has some", () => {
	const shown = (me) => pagesOf(me).some((page) => page.name === "nodes");
	assert.deepEqual([{ role: "admin", nodes: true }, { role: "admin" }, { role: "member", nodes: true }].map(shown), [true, false, false]);
});

test("only an address with a code signs in", async () => {
	globalThis.location = { hash: "#spaces/demo", pathname: "/", search: "" };
	const kept = {};
	globalThis.sessionStorage = { getItem: (key) => kept[key] ?? null, setItem: (key, value) => (kept[key] = value) };
	globalThis.history = { replaceState: (_state, _title, path) => (location.shown = path) };
	globalThis.fetch = async (path, { body }) => new Response(JSON.stringify({ bearer: `${path} ${JSON.parse(body).code}` }));
	assert.equal(await redeemLink(), false);
	location.hash = "#code=abc";
	assert.equal(await redeemLink(), true);
	assert.deepEqual([kept.bearer, location.shown], ["login/link abc", "/"]);
});

test("the remedy of a refusal is that of the account of now", () => {
	const a = { unlimited: false, leftSeconds: 30, creditSeconds: 0, resetsAt: after(3600) };
	const refusal = { again: after(-60), requestedSeconds: 60 };
	const from = (at) => words.againFrom(at === 3600 ? "1:00:00" : "0:01:00", now + 1000 * at);
	for (const [name, r, account, want] of [
		["never", { ...refusal, again: null }, a, words.never],
		["used again since", refusal, a, from(3600)],
		["before the time", { ...refusal, again: after(60) }, a, from(60)],
		["a grant", { ...refusal, again: after(60) }, { ...a, leftSeconds: 60 }, words.againNow],
		["credits", refusal, { ...a, creditSeconds: 30 }, words.againNow],
		["credits through another Space", { ...refusal, via: "other" }, { ...a, creditSeconds: 30 }, from(3600)],
		["through another Space", { ...refusal, via: "other" }, { ...a, leftSeconds: 90 }, words.againPerhaps],
		["no run", refusal, { ...a, leftSeconds: 90, runs: { enforced: true, remaining: 0, resetsAt: after(60) } }, from(60)],
		["runs are not enforced", refusal, { ...a, leftSeconds: 90, runs: { enforced: false, remaining: 0, resetsAt: after(60) } }, words.againNow],
		["a window without use", refusal, { ...a, resetsAt: null }, words.againUnknown],
		["no limit", refusal, { ...a, unlimited: true }, words.againNow],
	]) {
		assert.equal(remedyOf(r, account, now), want, name);
	}
});

test("a start or an end that is over is late", () => {
	assert.equal(when({ deadline: after(5) }, now), words.endsIn("0:00:05"));
	assert.equal(when({ deadline: after(-5) }, now), words.endIsLate);
	assert.equal(when({ rank: 0, earliestStart: after(5) }, now), words.startsIn(0, "0:00:05"));
	assert.equal(when({ rank: 0, earliestStart: after(0) }, now), words.startIsLate(0));
	assert.equal(when({ rank: 1 }, now), words.startUnknown(1));
	assert.equal(when({}, now), "");
});

test("times are compared with the clock of the host", () => {
	const ahead = Date.now() + 7200e3;
	setHostNow(new Date(ahead).toISOString());
	assert.equal(relative(new Date(ahead - 3600e3).toISOString()), "1 hour ago");
	assert.equal(hasEnded({ revokedAt: null, expiresAt: new Date(ahead - 1000).toISOString() }), true);
	assert.equal(hasEnded({ revokedAt: null, expiresAt: new Date(ahead + 60e3).toISOString() }), false);
});
