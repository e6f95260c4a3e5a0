// The timeline: GPU slots are rows, leases are bars. It moves with the pointer, with buttons and with keys, and has a table for screen readers.
import { html, useEffect, useMemo, useRef, useState } from "./vendor/htm-preact-3.1.1.js";
import { hostNow } from "./clock.js";
import { Failure, Table } from "./parts.js";
import { Tiles, latestOf, levelOf, missedIn, rowsOf, running } from "./timeline-data.js";
import { SIGNS, barAt, namesWidth, paint, visible } from "./timeline-draw.js";
import { moment, person, seconds, words } from "./words.js";

const LEAST = 10e3; // the shortest and the longest span of a view, in milliseconds
const MOST = 31 * 86400e3;
const MOST_LISTED = 200;

// useScene keeps what is drawn, outside of the state of the component: a frame must not render the page again.
function useScene(data) {
	const scene = useRef(null);
	const [version, changed] = useState(0); // after a read, a move and each second
	const [error, fail] = useState(null);
	if (!scene.current) {
		const draw = () => (scene.current.frame ??= requestAnimationFrame(() => ((scene.current.frame = null), scene.current.draw())));
		scene.current = {
			span: 3600e3, end: null, selected: null, hovered: null, draw() {}, ask: draw,
			tilesOf: new Tiles(() => (draw(), changed((n) => n + 1)), fail),
			settle: () => changed((n) => n + 1),
		};
	}
	const s = scene.current;
	s.data = data;
	s.layout = useMemo(() => rowsOf(data.gpus), [JSON.stringify(data.gpus.map((g) => [g.node, g.uuid, g.slots.map((one) => one.slot)]))]);
	useEffect(() => () => (s.tilesOf.close(), cancelAnimationFrame(s.frame)), []);
	return { scene: s, version, error };
}

// measure brings the scene to the present time and view, and reads what is missing.
export function measure(s, width) {
	const { data } = s;
	s.width = width;
	s.now = hostNow();
	s.to = s.end ?? s.now + s.span / 50;
	s.from = s.to - s.span;
	const level = levelOf(s.span / (width - namesWidth(width)));
	s.tiles = s.tilesOf.get(level, s.from, s.to, s.now, data.leases.ended[0]?.lease);
	s.live = running(data.leases, s.now);
	for (const name of ["selected", "hovered"]) s[name] = latestOf(s[name], s.live, (lease) => find(s, lease));
}

// find returns the bar of a lease in the view.
function find(s, lease) {
	let found = null;
	visible(s.tiles, s.live, s.layout, s.from, s.to, (bar) => bar.lease === lease && (found = bar));
	return found;
}

// zoom changes the span around a place of the view, from 0 to 1.
function zoom(s, factor, at = 0.5) {
	const fixed = s.from + at * s.span;
	const span = Math.min(MOST, Math.max(LEAST, s.span * factor));
	show(s, fixed - at * span, span);
}

// show moves the view. At its right end it follows the time.
function show(s, from, span) {
	s.span = span;
	s.end = from + span >= s.now ? null : from + span;
	s.ask();
}

// barsOfRow lists the bars of a row in the view, by time.
function barsOfRow(s, row) {
	const bars = [];
	visible(s.tiles, s.live, s.layout, s.from, s.to, (bar, at) => at === row && bars.push(bar));
	return bars.sort((a, b) => a.start - b.start);
}

// step selects the next bar, or one of the next row, for the arrow keys.
function step(s, sideways, down) {
	const before = s.selected ? s.layout.bySlot.get(s.selected.slot)?.at ?? 0 : -1;
	if (before < 0 || down) {
		const middle = s.selected ? (s.selected.start + s.selected.end) / 2 : s.to;
		for (let row = before < 0 ? 0 : before + down; row >= 0 && row < s.layout.rows.length; row += down || 1) {
			const bars = barsOfRow(s, row);
			if (bars.length === 0) continue;
			return bars.reduce((best, b) => (Math.abs((b.start + b.end) / 2 - middle) < Math.abs((best.start + best.end) / 2 - middle) ? b : best));
		}
		return s.selected;
	}
	const bars = barsOfRow(s, before);
	const at = bars.findIndex((b) => b === s.selected || (b.lease && b.lease === s.selected.lease));
	return bars[at + sideways] ?? s.selected;
}

export function Timeline({ data, act }) {
	const canvas = useRef(null);
	const card = useRef(null);
	const { scene: s, version, error } = useScene(data);
	const { selected, hovered } = s;
	const [listed, list] = useState(false);
	const choose = (bar) => {
		s.selected = bar;
		if (bar && (bar.end < s.from || bar.start > s.to)) show(s, bar.start - s.span / 2, s.span);
		s.ask();
		s.settle();
	};
	const hover = (bar) => {
		s.hovered = bar;
		s.ask();
		s.settle();
	};

	useEffect(() => {
		s.draw = () => {
			if (!canvas.current) return;
			const before = [s.selected?.kind, s.hovered?.kind, s.isEmpty].join();
			measure(s, canvas.current.clientWidth);
			paint(canvas.current, s);
			if (s.isDue || [s.selected?.kind, s.hovered?.kind, s.isEmpty].join() !== before) s.settle(); // of a running bar only each second
			s.isDue = false;
		};
		s.draw();
		const timer = setInterval(() => ((s.isDue = true), s.ask()), 1000);
		const watch = new ResizeObserver(s.ask);
		watch.observe(canvas.current);
		const theme = matchMedia("(prefers-color-scheme: dark)");
		theme.addEventListener("change", s.ask);
		const wheel = (event) => {
			event.preventDefault();
			const box = canvas.current.getBoundingClientRect();
			const names = namesWidth(box.width);
			const at = Math.min(1, Math.max(0, (event.clientX - box.left - names) / (box.width - names)));
			if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) show(s, s.from + ((event.deltaX || event.deltaY) / (box.width - names)) * s.span, s.span);
			else zoom(s, Math.exp(Math.max(-1, Math.min(1, event.deltaY / 300))), at);
			later();
		};
		let pause;
		const later = () => (clearTimeout(pause), (pause = setTimeout(s.settle, 200)));
		canvas.current.addEventListener("wheel", wheel, { passive: false });
		return () => {
			clearInterval(timer);
			clearTimeout(pause);
			watch.disconnect();
			theme.removeEventListener("change", s.ask);
			canvas.current?.removeEventListener("wheel", wheel);
		};
	}, []);
	useEffect(() => s.ask(), [data.leases, data.gpus]);

	const drag = usePointer(s, canvas, card, choose, hover);
	const key = (event) => {
		const act = {
			ArrowLeft: () => choose(step(s, -1, 0)), ArrowRight: () => choose(step(s, 1, 0)), ArrowUp: () => choose(step(s, 0, -1)), ArrowDown: () => choose(step(s, 0, 1)),
			PageUp: () => show(s, s.from - s.span / 2, s.span), PageDown: () => show(s, s.from + s.span / 2, s.span), End: () => show(s, s.now, s.span), Home: () => show(s, s.now - MOST, s.span),
			"+": () => zoom(s, 0.5), "=": () => zoom(s, 0.5), "-": () => zoom(s, 2), Escape: () => choose(null), Enter: () => selected && !selected.lease && into(s, selected, choose),
		}[event.key];
		if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
		event.preventDefault();
		act();
		s.settle();
	};
	const go = (move) => () => (move(), s.settle());
	const w = words.gpus;
	return html`<section class="timeline">
		<div class="bar"><h2>${words.timeline}</h2>
			<div class="choices" role="group" aria-label=${w.span}>${Object.entries(words.spans).map(([length, name]) => html`<button class="plain" aria-pressed=${s.span === 1000 * length && s.end === null} onClick=${go(() => show(s, s.now, 1000 * length))}>${name}</button>`)}</div>
			<div class="choices" role="group" aria-label=${w.move}>
				<button class="plain" aria-label=${w.earlier} title=${w.earlier} onClick=${go(() => show(s, s.from - s.span / 2, s.span))}>‹</button>
				<button class="plain" aria-label=${w.zoomOut} title=${w.zoomOut} onClick=${go(() => zoom(s, 2))}>−</button>
				<button class="plain" aria-label=${w.zoomIn} title=${w.zoomIn} onClick=${go(() => zoom(s, 0.5))}>+</button>
				<button class="plain" aria-label=${w.later} title=${w.later} onClick=${go(() => show(s, s.from + s.span / 2, s.span))}>›</button>
				<button class="plain" disabled=${s.end === null} onClick=${go(() => show(s, s.now, s.span))}>${w.now}</button>
			</div>
		</div>
		${error && html`<${Failure} error=${error} retry=${() => (s.tilesOf.retry(), s.ask())} />`}
		<div class="plot" role="application" tabindex="0" aria-label=${w.plot(s.from, s.to)} aria-describedby="timeline-keys" onKeyDown=${key}>
			<canvas ref=${canvas} aria-hidden="true" ...${drag}></canvas>
			<div class="hover card" ref=${card} hidden=${!hovered} aria-hidden="true">${hovered && html`<${Card} bar=${hovered} now=${s.now} />`}</div>
		</div>
		<p class="soft state" role="status">${s.tilesOf.isLoading ? words.loading : version && s.isEmpty ? words.timelineNone : ""}</p>
		<ul class="legend" aria-label=${w.legend}>${Object.entries(w.kinds).map(([kind, name]) => html`<li><span class=${"swatch kind-" + kind} aria-hidden="true">${SIGNS[kind]}</span>${name}</li>`)}${Object.entries(w.missed).map(([kind, name]) => html`<li><span class=${"swatch missed " + kind} aria-hidden="true">${kind === "refused" ? "■" : "▼"}</span>${name}</li>`)}</ul>
		<p class="soft" id="timeline-keys">${w.keys}</p>
		<div aria-live="polite">${selected && html`<${Details} bar=${selected} now=${s.now} act=${act} into=${() => into(s, selected, choose)} close=${() => choose(null)} />`}</div>
		<details onToggle=${(event) => list(event.target.open)}><summary>${w.asTable}</summary>${listed && html`<${List} scene=${s} choose=${choose} />`}</details>
	</section>`;
}

// into zooms to a bar of several calls, so that each is a bar.
function into(s, bar, choose) {
	const span = Math.min(MOST, Math.max(LEAST, 1.2 * (bar.end - bar.start)));
	choose(null);
	show(s, (bar.start + bar.end) / 2 - span / 2, span);
	s.settle();
}

// usePointer moves the view with a drag, selects with a click, and shows a card at the pointer. With shift, a drag zooms to what it covers.
function usePointer(s, canvas, card, choose, hover) {
	const from = useRef(null);
	const at = (event) => {
		const box = canvas.current.getBoundingClientRect();
		return { x: event.clientX - box.left, y: event.clientY - box.top };
	};
	const time = (x) => s.from + ((x - namesWidth(s.width)) / (s.width - namesWidth(s.width))) * s.span;
	return {
		onPointerDown(event) {
			if (event.button !== 0) return;
			canvas.current.setPointerCapture(event.pointerId);
			from.current = { ...at(event), view: s.from, shift: event.shiftKey, moved: false };
		},
		onPointerMove(event) {
			const { x, y } = at(event);
			const start = from.current;
			if (start) {
				start.moved ||= Math.abs(x - start.x) > 3;
				if (start.moved && !start.shift) show(s, start.view - ((x - start.x) / (s.width - namesWidth(s.width))) * s.span, s.span);
				return;
			}
			const bar = s.tiles ? barAt(s, x, y) : null;
			if (card.current) Object.assign(card.current.style, { left: Math.max(0, Math.min(x + 14, s.width - 300)) + "px", top: y + 18 + "px" });
			if (bar !== s.hovered) hover(bar);
		},
		onPointerUp(event) {
			const { x, y } = at(event);
			const start = from.current;
			from.current = null;
			if (!start) return;
			if (!start.moved) {
				const bar = barAt(s, x, y);
				if (!bar?.missed) choose(bar); // a mark has no details: its card and the table have all
			}
			else if (start.shift) show(s, Math.min(time(x), time(start.x)), Math.max(LEAST, Math.abs(time(x) - time(start.x))));
			s.settle();
		},
		onPointerLeave() {
			if (s.hovered) hover(null);
		},
	};
}

const used = (bar) => (bar.idle < 0 ? 0 : Math.max(0, bar.end - bar.start - bar.idle) / 1000);
const kindOf = (bar) => words.gpus.kinds[bar.kind];

// Card is what the pointer shows of a bar.
function Card({ bar }) {
	if (bar.missed) return html`<strong>${words.gpus.calls(bar.calls)}</strong><p>${words.gpus.missed[bar.kind]}, ${moment(bar.at)}</p>`;
	if (!bar.lease) return html`<strong>${words.gpus.calls(bar.calls)}</strong><p>${words.gpus.busy(bar)}</p>${bar.killed > 0 && html`<p>${words.gpus.killed(bar.killed)}</p>`}<p class="soft">${words.gpus.into}</p>`;
	return html`<strong>${bar.space}${bar.function && ": " + bar.function}</strong>
		<p>${person(bar.identity)}, ${moment(bar.start)}</p>
		<p>${words.gpus.usedOf(used(bar), bar.declared / 1000)}</p>
		<p>${SIGNS[bar.kind]} ${kindOf(bar)}${bar.reason && bar.reason !== bar.kind ? ": " + bar.reason : ""}</p>`;
}

// Details shows the selected bar, also to screen readers.
function Details({ bar, act, into, close }) {
	const c = words.columns;
	const w = words.gpus;
	const several = !bar.lease;
	const rows = several
		? [[w.period, `${moment(bar.start)} – ${moment(bar.end)}`], [w.callsName, bar.calls], [c.used, words.gpus.busy(bar)], [c.declared, seconds(bar.declared / 1000)], [c.charged, seconds(bar.charged / 1000)], [w.ended, bar.killed ? w.killed(bar.killed) : kindOf(bar)]]
		: [[c.space, bar.space], [c.function, bar.function], [c.who, person(bar.identity)], [w.granted, moment(bar.start)], [w.ended, bar.kind === "running" ? w.kinds.running : `${moment(bar.end)}, ${kindOf(bar)}${bar.reason ? ` (${bar.reason})` : ""}`],
			[c.declared, seconds(bar.declared / 1000)], [c.used, html`<span aria-live=${bar.kind === "running" ? "off" : null}>${seconds(used(bar))}</span>`], ...(bar.kind === "running" ? [] : [[c.charged, seconds(bar.charged / 1000)]]), [w.lease, html`<code>${bar.lease}</code>`]];
	return html`<section class="card details" aria-label=${w.details}>
		<h3>${several ? w.calls(bar.calls) : `${bar.space}${bar.function && ": " + bar.function}`}</h3>
		<dl>${rows.filter(([, value]) => value !== "").map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>
		${several && html`<button class="plain" onClick=${into}>${w.zoomTo}</button> `}
		${bar.kind === "running" && act && html`<a class="button plain" href="#line">${w.toLine}</a> `}
		<button class="plain" onClick=${close}>${w.close}</button>
	</section>`;
}

// List shows the bars of the view as a table.
function List({ scene: s, choose }) {
	const bars = new Set();
	if (s.tiles) visible(s.tiles, s.live, s.layout, s.from, s.to, (bar) => bars.add(bar));
	const rows = [...bars].sort((a, b) => b.start - a.start).map((bar) => ({ ...bar, bar, several: !bar.lease, id: `${bar.slot} ${bar.start}`, lease: undefined }));
	const c = words.columns;
	const w = words.gpus;
	const missed = s.tiles ? missedIn(s.tiles, s.from, s.to).map((m) => ({ ...m, id: `${m.kind} ${m.at}` })) : [];
	return html`
		${missed.length > 0 && html`<${Table} whole caption=${w.missedCalls} rows=${missed.slice(-MOST_LISTED).reverse()} columns=${[[c.at, (m) => moment(m.at)], [w.callsName, (m) => m.calls, "number"], [c.reason, (m) => w.missed[m.kind]]]} />`}
		${rows.length > MOST_LISTED && html`<p class="soft">${w.listed(MOST_LISTED, rows.length)}</p>`}
		<${Table} whole none=${words.timelineNone} rows=${rows.slice(0, MOST_LISTED)} columns=${[
			[c.gpu, (b) => s.layout.rows[s.layout.bySlot.get(b.slot).at].name],
			[c.at, (b) => moment(b.start)],
			[c.space, (b) => b.space || w.calls(b.calls)],
			[c.function, (b) => b.function],
			[c.who, (b) => person(b.identity)],
			[c.declared, (b) => seconds(b.declared / 1000), "number"],
			[c.used, (b) => seconds(b.several ? b.busy / 1000 : used(b)), "number"],
			[w.ended, (b) => kindOf(b) + (b.several && b.killed ? `, ${w.killed(b.killed)}` : "")],
			[c.actions, (b) => html`<button class="plain" onClick=${() => choose(b.bar)}>${w.details}</button>`],
		]} />`;
}
