// Drawing of the timeline on a canvas: a week may have 100,000 leases, and a DOM of that size does not scroll.
import { byRow, lowerBound, missedIn } from "./timeline-data.js";
import { words } from "./words.js";

const ROW = 30;
const AXIS = 24;
const STRIP = 14; // above the rows: calls that got no GPU

// COLORS are the variables of the theme for the kinds of ends. The signs tell the kinds apart without colour.
const COLORS = { running: "--good", released: "--bar", failed: "--warn", deadline: "--bad", operator: "--bad", drain: "--warn", crash: "--bad", cancelled: "--soft", unclaimed: "--soft" };
export const SIGNS = { running: "", released: "", failed: "!", deadline: "◆", operator: "✕", drain: "↓", crash: "#", cancelled: "–", unclaimed: "?" };

// namesWidth is the room for the names of the rows.
export const namesWidth = (width) => (width < 500 ? 58 : 84);

const STEPS = [1, 5, 15, 30, 60, 300, 900, 1800, 3600, 10800, 21600, 43200, 86400, 172800, 604800].map((s) => 1000 * s);

// visible calls each(bar, row) for the bars of a view, found by binary search.
export function visible(tiles, live, layout, from, to, each) {
	for (const tile of tiles) {
		const rows = byRow(tile, layout);
		for (const [row, { bars, ends }] of rows.entries()) for (let i = lowerBound(ends, from); i < bars.length && bars[i].start <= to; i++) each(bars[i], row);
	}
	for (const bar of live) {
		const at = layout.bySlot.get(bar.slot);
		if (at && bar.start <= to) for (let row = bar.whole ? at.first : at.at; row <= (bar.whole ? at.last : at.at); row++) each(bar, row);
	}
}

// markAt returns the mark of calls without a GPU at a place above the rows.
function markAt({ tiles, from, to, width }, x) {
	const names = namesWidth(width);
	const far = (m) => Math.abs(names + ((m.at - from) / (to - from)) * (width - names) - x);
	return missedIn(tiles, from, to).filter((m) => far(m) <= 7).sort((a, b) => far(a) - far(b))[0] ?? null;
}

// barAt returns the bar, or the mark above the rows, at a place of the canvas.
export function barAt(scene, x, y) {
	const { layout, from, to, width, tiles, live } = scene;
	const row = Math.floor((y - STRIP) / ROW);
	const names = namesWidth(width);
	if (row < 0 && y >= 0) return markAt(scene, x);
	if (row < 0 || row >= layout.rows.length || x < names) return null;
	const perPixel = (to - from) / (width - names);
	const at = from + (x - names) * perPixel;
	let found = null;
	let nearest = 4 * perPixel; // short bars are hard to hit
	visible(tiles, live, layout, at - nearest, at + nearest, (bar, barRow) => {
		const far = barRow !== row ? Infinity : at < bar.start ? bar.start - at : Math.max(0, at - bar.end);
		if (far < nearest) [found, nearest] = [bar, far];
	});
	return found;
}

// paint draws the scene: { layout, tiles, live, from, to, now, width, selected, hovered }.
export function paint(canvas, scene) {
	const { layout, from, to, now, width } = scene;
	const height = STRIP + layout.rows.length * ROW + AXIS;
	const scale = devicePixelRatio;
	if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
		canvas.style.height = height + "px";
		canvas.width = Math.round(width * scale);
		canvas.height = Math.round(height * scale);
	}
	const style = getComputedStyle(canvas);
	const colors = {};
	const color = (name) => (colors[name] ??= style.getPropertyValue(name));
	const c = canvas.getContext("2d");
	c.setTransform(scale, 0, 0, scale, 0, 0);
	c.clearRect(0, 0, width, height);
	c.font = "12px system-ui, sans-serif";
	c.textBaseline = "middle";
	const names = namesWidth(width);
	const x = (at) => names + ((at - from) / (to - from)) * (width - names);
	const bottom = STRIP + layout.rows.length * ROW;
	axis(c, color, { from, to, width, names, x, bottom });
	for (const [n, row] of layout.rows.entries()) {
		c.fillStyle = color("--text");
		c.fillText(row.name, 0, STRIP + n * ROW + ROW / 2, names - 6);
		c.fillStyle = color("--line");
		c.fillRect(0, STRIP + (n + 1) * ROW - 1, width, 1);
	}
	c.save();
	c.beginPath();
	c.rect(names, 0, width - names, bottom);
	c.clip();
	const painted = new Float64Array(layout.rows.length).fill(-Infinity); // up to which pixel each row shows a bar
	const kinds = [];
	scene.isEmpty = true;
	visible(scene.tiles, scene.live, layout, from, to, (bar, row) => {
		const right = x(bar.end);
		scene.isEmpty = false;
		if (right < painted[row] + 0.7 && (!bar.killed || kinds[row] === bar.kind) && bar.lease !== scene.selected?.lease) return; // within a pixel of the one before
		[painted[row], kinds[row]] = [right, bar.kind];
		drawBar(c, color, x, bar, STRIP + row * ROW + 5, scene);
	});
	for (const m of missedIn(scene.tiles, from, to)) {
		scene.isEmpty = false;
		c.fillStyle = color(m.kind === "refused" ? "--bad" : "--warn");
		if (m.kind === "refused") c.fillRect(x(m.at) - 4, 3, 8, 8);
		else triangle(c, x(m.at), 2);
	}
	if (now >= from && now <= to) {
		c.fillStyle = color("--accent");
		c.fillRect(Math.round(x(now)), 0, 1, bottom);
	}
	c.restore();
}

function triangle(c, x, y) {
	c.beginPath();
	c.moveTo(x - 5, y);
	c.lineTo(x + 5, y);
	c.lineTo(x, y + 9);
	c.fill();
}

// drawBar draws the declared time as a frame and the used time as its filling. A bar of several calls is filled as high as they kept the slot busy.
function drawBar(c, color, x, bar, y, { selected, hovered }) {
	const height = ROW - 11;
	const left = x(bar.start);
	const width = Math.max(1, x(bar.end) - left);
	c.fillStyle = color(COLORS[bar.kind]);
	if (!bar.lease) {
		const share = Math.min(1, bar.busy / Math.max(1, bar.end - bar.start));
		const filled = Math.max(3, share * height);
		c.globalAlpha = 0.75;
		c.fillStyle = color(bar.killed ? "--bar" : COLORS[bar.kind]);
		c.fillRect(left, y + height - filled, width, filled);
		c.globalAlpha = 1;
		if (bar.killed) {
			c.fillStyle = color(COLORS[bar.kind]);
			c.fillRect(left, y - 4, Math.max(2, width), 3);
		}
	} else {
		const declared = x(bar.start + Math.max(0, bar.idle) + bar.declared) - left;
		if (declared > width + 1) {
			c.globalAlpha = 0.18;
			c.fillRect(left, y, declared, height);
			c.globalAlpha = 1;
			c.strokeStyle = color(COLORS[bar.kind]);
			c.strokeRect(left + 0.5, y + 0.5, declared - 1, height - 1);
		}
		if (bar.idle > 0) { // the worker starts: nothing is charged
			const start = Math.min(width, x(bar.start + bar.idle) - left);
			c.globalAlpha = 0.45;
			c.fillRect(left, y, start, height);
			c.globalAlpha = 1;
			c.fillRect(left + start, y, Math.max(1, width - start), height);
		} else c.fillRect(left, y, width, height);
		if (bar.killed) c.fillRect(left + width - 2, y - 4, 3, height + 8);
		if (width > 46) label(c, color, bar, left, y, width, height);
	}
	if (bar === selected || bar === hovered || (bar.lease && bar.lease === selected?.lease)) {
		c.strokeStyle = color("--text");
		c.lineWidth = 2;
		c.strokeRect(left - 1, y - 1, width + 2, height + 2);
		c.lineWidth = 1;
	}
}

function label(c, color, bar, left, y, width, height) {
	const text = [SIGNS[bar.kind], bar.function || bar.space].filter(Boolean).join(" ");
	c.save();
	c.beginPath();
	c.rect(left, y, width - 3, height);
	c.clip();
	c.fillStyle = color("--card");
	c.fillText(text, left + 5, y + height / 2 + 0.5);
	c.restore();
}

function axis(c, color, { from, to, width, names, x, bottom }) {
	const room = (width - names) / 90;
	const step = STEPS.find((s) => (to - from) / s <= room) ?? STEPS.at(-1);
	const offset = new Date(from).getTimezoneOffset() * 60e3;
	for (let at = Math.ceil((from - offset) / step) * step + offset; at <= to; at += step) {
		c.fillStyle = color("--line");
		c.fillRect(Math.round(x(at)), 0, 1, bottom + 4);
		const text = words.timelineTick(at, step);
		const wide = c.measureText(text).width;
		c.fillStyle = color("--soft");
		if (x(at) + wide / 2 <= width && x(at) - wide / 2 >= names - 20) c.fillText(text, x(at) - wide / 2, bottom + AXIS / 2 + 1);
	}
}
