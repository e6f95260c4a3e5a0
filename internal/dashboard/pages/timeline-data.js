// The data of the timeline: tiles of ended leases at a level of detail, and the rows that they are drawn on.
import { request } from "./session.js";

// Levels of detail: calls that end within one step are one bar. A tile is read once, and only its end is read again as calls end.
const LEVELS = [
	{ step: 0, tile: 3600e3 },
	{ step: 5e3, tile: 6 * 3600e3 },
	{ step: 30e3, tile: 2 * 86400e3 },
	{ step: 150e3, tile: 7 * 86400e3 },
	{ step: 600e3, tile: 28 * 86400e3 },
];
const MOST_TILES = 40;
const OVERLAP = 10e3; // a lease is written some time after its end
const PAUSE = 1000; // between two reads of a tile
const second = (at) => new Date(at).toISOString();

// levelOf returns the level whose steps are at most a pixel wide.
export const levelOf = (millisecondsPerPixel) => LEVELS.findLastIndex((l) => l.step <= millisecondsPerPixel);

// lowerBound returns the first index whose value is at least x.
export function lowerBound(values, x, low = 0, high = values.length) {
	while (low < high) {
		const middle = (low + high) >> 1;
		if (values[middle] < x) low = middle + 1;
		else high = middle;
	}
	return low;
}

// Tiles holds what was read. changed is called after each read, failed with its error.
export class Tiles {
	#tiles = new Map(); // oldest use first
	#changed;
	#failed;
	#stop = new AbortController();

	constructor(changed, failed) {
		this.#changed = changed;
		this.#failed = failed;
	}

	close() {
		this.#stop.abort();
	}

	// get returns the tiles of a view that were read, and reads those that were not. Calls that began in the view may have ended in the
	// tile after it. latest is the lease that ended last: a tile that was read before its end is read again, also if another level was
	// shown meanwhile. A read that failed is tried again.
	get(level, from, to, now, latest) {
		const { tile } = LEVELS[level];
		const found = [];
		for (let n = Math.floor(from / tile); n * tile <= Math.min(to + tile, now); n++) {
			const key = level + ":" + n;
			const one = this.#tiles.get(key) ?? { level, from: n * tile, to: (n + 1) * tile, until: n * tile, tried: 0, parts: [] };
			this.#tiles.delete(key);
			this.#tiles.set(key, one);
			const isOld = one.until < one.to && (one.until === one.from || one.latest !== latest || one.again);
			if (isOld && !one.loading && Date.now() - one.tried > PAUSE) this.#read(one, now, latest);
			if (one.until > one.from) found.push(one);
		}
		for (const key of this.#tiles.keys()) {
			if (this.#tiles.size <= MOST_TILES) break;
			this.#tiles.delete(key);
		}
		return found;
	}

	// retry lets the next get read at once what failed.
	retry() {
		for (const tile of this.#tiles.values()) if (tile.again) tile.tried = 0;
	}

	// isLoading reports whether a part of the last view was never read.
	get isLoading() {
		return [...this.#tiles.values()].some((t) => t.loading && t.until === t.from);
	}

	async #read(tile, now, latest) {
		const step = LEVELS[tile.level].step;
		let from = Math.max(tile.from, tile.until - OVERLAP);
		if (step) from = Math.max(tile.from, Math.floor(from / step) * step);
		Object.assign(tile, { loading: true, again: false, tried: Date.now(), latest });
		try {
			const answer = await request(`api/spacehost/admin/lease/timeline?from=${second(from)}&to=${second(tile.to)}&step=${step / 1000}`, undefined, "GET", this.#stop.signal);
			const fresh = barsOf(answer);
			tile.bars = tile.bars ? tile.bars.filter((b) => b.end < from).concat(fresh) : fresh;
			const whole = Math.max(step, 60e3); // refusals are stored by the minute, so the answer has the begun step again
			tile.missed = [...(tile.missed ?? []).filter((m) => m.at < (m.kind === "refused" ? from - (from % whole) : from)), ...answer.missed.at.map((at, i) => ({ at: at + from, calls: answer.missed.calls[i], kind: answer.missed.kind[i], missed: true }))];
			tile.rows = null;
			tile.until = Math.min(tile.to, now);
			this.#failed(null);
		} catch (error) {
			tile.again = true;
			if (!this.#stop.signal.aborted) this.#failed(error);
		}
		tile.loading = false;
		if (!this.#stop.signal.aborted) this.#changed();
	}
}

// keyOf identifies a slot on all machines: by its number on the host's own machine, which has no name.
export const keyOf = (node, slot) => (node ? `${node}/${slot}` : slot);

// barsOf makes bars of the columns of an answer.
export function barsOf(answer) {
	const { bars: b, from, ends } = answer;
	const zero = Date.parse(from);
	const of = (names, i) => (i < 0 ? "" : names[i]);
	return b.slot.map((slot, i) => ({
		slot: keyOf(b.node && answer.nodes[b.node[i]], slot), start: zero + b.start[i], end: zero + b.start[i] + b.length[i], busy: b.busy[i], idle: b.idle[i], declared: b.declared[i], charged: b.charged[i],
		calls: b.calls[i], killed: b.killed[i], kind: ends[b.end[i]], whole: b.whole[i] === 1, lease: b.lease[i],
		space: of(answer.spaces, b.space[i]), function: of(answer.functions, b.function[i]), identity: of(answer.identities, b.identity[i]), reason: of(answer.reasons, b.reason[i]),
	}));
}

// rowsOf returns the rows of the timeline: one for each slot, in the order of the GPUs. A lease of a whole GPU is drawn in all of its rows.
export function rowsOf(gpus) {
	const rows = [];
	const bySlot = new Map();
	for (const gpu of gpus) {
		const first = rows.length;
		for (const [n, slot] of gpu.slots.entries()) {
			const key = keyOf(gpu.node, slot.slot);
			const name = (gpu.node ? gpu.node + " " : "") + (gpu.uuid.startsWith("MIG-") ? `MIG ${slot.slot}` : `GPU ${gpu.index}` + (gpu.slots.length > 1 ? " " + "abcdefgh"[n] : ""));
			bySlot.set(key, { at: rows.length, first, last: first + gpu.slots.length - 1 });
			rows.push({ name, slot: key });
		}
	}
	return { rows, bySlot };
}

// byRow sorts the bars of a tile into rows, once, with their times as arrays for binary search. Bars of one row do not overlap.
export function byRow(tile, layout) {
	if (tile.rows?.layout === layout) return tile.rows.rows;
	const lists = layout.rows.map(() => []);
	for (const bar of tile.bars) {
		const at = layout.bySlot.get(bar.slot);
		if (!at) continue; // a GPU that is gone
		for (let row = bar.whole ? at.first : at.at; row <= (bar.whole ? at.last : at.at); row++) lists[row].push(bar);
	}
	const rows = lists.map((bars) => {
		bars.sort((a, b) => a.start - b.start);
		return { bars, ends: Float64Array.from(bars, (b) => b.end) };
	});
	tile.rows = { layout, rows };
	return rows;
}

// latestOf returns the bar of now for one that was selected: a running call gets longer. ended finds the bar of a lease that has ended.
export const latestOf = (bar, live, ended) => (bar?.kind === "running" ? live.find((b) => b.lease === bar.lease) ?? ended(bar.lease) ?? bar : bar);

// missedIn returns the marks of calls without a GPU in a view, by time.
export const missedIn = (tiles, from, to) => tiles.flatMap((t) => t.missed ?? []).filter((m) => m.at >= from && m.at <= to).sort((a, b) => a.at - b.at);

// running returns the leases that have a GPU now, as bars. Their end is now.
export const running = (leases, now) =>
	leases.open
		.filter((l) => l.slot !== undefined && l.granted)
		.map((l) => ({
			slot: keyOf(l.node, l.slot), start: Date.parse(l.granted), end: Math.max(now, Date.parse(l.granted)), busy: now - Date.parse(l.granted), idle: l.active ? Date.parse(l.active) - Date.parse(l.granted) : -1,
			declared: l.declaredSeconds * 1000, charged: 0, calls: 1, killed: 0, kind: "running", whole: l.size === "xlarge", lease: l.lease, space: l.space, function: l.function ?? "", identity: l.identity, reason: "",
		}));
