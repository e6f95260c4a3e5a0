// Tests of the timeline that need no browser. TestFunctionsOfPages runs them beside a copy of the pages.
import test from "node:test";
import assert from "node:assert/strict";
import { Tiles, barsOf, rowsOf, running } from "./timeline-data.js";
import { measure } from "./timeline.js";

globalThis.sessionStorage = { getItem: () => null };

// host answers requests for the timeline: with no bar, or with an error while failing is set.
function host() {
	const h = { asked: [], failing: false };
	const empty = Object.fromEntries(["slot", "start", "length", "busy", "idle", "declared", "charged", "calls", "killed", "end", "whole", "lease", "space", "function", "identity", "reason"].map((name) => [name, []]));
	globalThis.fetch = async (path) => {
		const query = new URL(path, "http://host/").searchParams;
		h.asked.push(`step ${query.get("step")}`);
		if (h.failing) return new Response('{"detail": "database is locked"}', { status: 500 });
		return new Response(JSON.stringify({ from: query.get("from"), bars: empty, ends: [], missed: { at: [], calls: [] }, spaces: [], functions: [], identities: [], reasons: [] }));
	};
	h.requests = async () => {
		for (let i = 0; i < 5; i++) await new Promise(setImmediate);
		return h.asked.splice(0);
	};
	return h;
}

const start = Date.parse("2026-11-20T12:20:00Z");

test("calls that ended while another zoom was shown are read", async (t) => {
	t.mock.timers.enable({ apis: ["Date"], now: start });
	const h = host();
	const tiles = new Tiles(() => {}, assert.ifError);
	const view = (level, latest) => tiles.get(level, Date.now() - 600e3, Date.now(), Date.now(), latest);
	view(0, "a");
	assert.deepEqual(await h.requests(), ["step 0"]);
	view(1, "a");
	assert.deepEqual(await h.requests(), ["step 5"]);
	t.mock.timers.tick(2000);
	view(1, "b"); // b has ended
	assert.deepEqual(await h.requests(), ["step 5"]);
	view(0, "b");
	assert.deepEqual(await h.requests(), ["step 0"]);
	t.mock.timers.tick(2000);
	view(0, "b");
	view(1, "b");
	assert.deepEqual(await h.requests(), [], "nothing has ended");
});

test("a read that failed is tried again, at once on demand", async (t) => {
	t.mock.timers.enable({ apis: ["Date"], now: start });
	const h = host();
	const errors = [];
	const tiles = new Tiles(() => {}, (error) => errors.push(error?.message));
	const view = (latest) => tiles.get(0, Date.now() - 600e3, Date.now(), Date.now(), latest);
	view("a");
	await h.requests();
	t.mock.timers.tick(2000);
	h.failing = true;
	view("b");
	assert.deepEqual(await h.requests(), ["step 0"]);
	h.failing = false;
	view("b");
	assert.deepEqual(await h.requests(), [], "without a pause");
	tiles.retry();
	view("b");
	assert.deepEqual(await h.requests(), ["step 0"]);
	assert.deepEqual(errors, [undefined, "database is locked", undefined]);
	t.mock.timers.tick(2000);
	h.failing = true;
	view("c");
	await h.requests();
	h.failing = false;
	t.mock.timers.tick(2000);
	view("c");
	assert.deepEqual(await h.requests(), ["step 0"], "after a pause");
});

test("the used time of a selected running call grows", (t) => {
	t.mock.timers.enable({ apis: ["Date"], now: start });
	host();
	const granted = new Date(start - 5000).toISOString();
	const open = [{ lease: "a", slot: "0", granted, active: granted, declaredSeconds: 60, identity: "user:ada", space: "demo" }];
	const data = { received: start, leases: { now: new Date(start).toISOString(), open, ended: [] }, gpus: [] };
	const s = { data, layout: rowsOf([]), span: 3600e3, end: null, selected: null, hovered: null, tilesOf: new Tiles(() => {}, () => {}) };
	measure(s, 800);
	s.selected = s.hovered = s.live[0];
	t.mock.timers.tick(10_000);
	measure(s, 800);
	for (const bar of [s.selected, s.hovered]) assert.equal(bar.end - bar.start, 15_000);
});

test("slots of nodes have rows of their own", () => {
	const layout = rowsOf([
		{ uuid: "GPU-1", index: 0, slots: [{ slot: 0 }] },
		{ uuid: "GPU-2", index: 0, node: "gpu2", slots: [{ slot: 0 }, { slot: 1 }] },
	]);
	assert.deepEqual(layout.rows.map((row) => row.name), ["GPU 0", "gpu2 GPU 0 a", "gpu2 GPU 0 b"]);
	const column = (...values) => values;
	const bars = barsOf({
		from: new Date(start).toISOString(), ends: ["released"], nodes: ["", "gpu2"], spaces: [], functions: [], identities: [], reasons: [],
		bars: { node: column(0, 1), slot: column(0, 1), start: column(0, 0), length: column(5, 5), busy: column(5, 5), idle: column(0, 0), declared: column(5, 5), charged: column(5, 5), calls: column(1, 1), killed: column(0, 0), end: column(0, 0), whole: column(0, 0), lease: column("a", "b"), space: column(-1, -1), function: column(-1, -1), identity: column(-1, -1), reason: column(-1, -1) },
	});
	assert.deepEqual(bars.map((bar) => layout.bySlot.get(bar.slot).at), [0, 2]);
	const granted = new Date(start).toISOString();
	const live = running({ open: [{ lease: "c", slot: 0, node: "gpu2", granted, declaredSeconds: 60 }] }, start);
	assert.equal(layout.bySlot.get(live[0].slot).at, 1);
});
