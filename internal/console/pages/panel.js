// The bar: a line with the visitor's account, and a panel with details. On a Space's page it is in the Space's origin, where the
// Space's scripts can read and click it. So it shows what the Space may know, and links to the console for everything else.
import { words } from "./words.js";

const base = new URL("./", import.meta.url);
const idle = 15_000; // between requests, in milliseconds
const busy = 2_000; // while a call waits or runs
const firstRetry = 5_000;
const lastRetry = 60_000;

const style = `
:host { all: initial; }
:host(:not([around])) { position: fixed; left: max(.75rem, env(safe-area-inset-left)); bottom: max(.75rem, env(safe-area-inset-bottom)); z-index: 2147483000; }
section { --text: light-dark(#1c1c1e, #ececee); --soft: light-dark(#5c5c63, #a9a9b2); --card: light-dark(#fff, #212124); --line: light-dark(#dcdce0, #3a3a40); --accent: light-dark(#1d4ed8, #8fb0ff); --good: light-dark(#15803d, #4ade80); --warn: light-dark(#b45309, #fbbf24); --bad: light-dark(#b91c1c, #f87171);
	font: 13px/1.45 system-ui, sans-serif; color: var(--text); display: flex; flex-direction: column-reverse; align-items: flex-start; gap: .5rem; }
:host([around]) section { flex-direction: column; position: relative; border-bottom: 1px solid var(--line); background: var(--card); padding: .375rem .75rem; }
button, a { font: inherit; color: inherit; cursor: pointer; }
.chip { display: inline-flex; align-items: center; gap: .5em; max-width: calc(100vw - 1.5rem); padding: .25em .8em; border: 1px solid var(--line); border-radius: 99px; background: var(--card); font-variant-numeric: tabular-nums; }
:host(:not([around])) .chip { box-shadow: 0 1px 4px rgb(0 0 0 / .18); }
.chip span { white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }
.chip .dot { flex: none; width: .6em; height: .6em; border-radius: 50%; background: var(--soft); }
.dot.in { background: var(--good); } .dot.waiting { background: var(--warn); } .dot.lost { background: var(--bad); }
.soft { color: var(--soft); }
.panel { box-sizing: border-box; width: min(21rem, calc(100vw - 1.5rem)); max-height: 70vh; overflow: auto; padding: .75rem 1rem; border: 1px solid var(--line); border-radius: .625rem; background: var(--card); box-shadow: 0 4px 18px rgb(0 0 0 / .2); overflow-wrap: anywhere; }
:host([around]) .panel { position: absolute; top: 100%; left: .75rem; z-index: 1; }
.panel[hidden] { display: none; }
p { margin: 0 0 .4rem; } strong { font-weight: 600; }
.actions { display: flex; flex-wrap: wrap; gap: .25rem 1rem; margin: .5rem 0 0; padding-top: .5rem; border-top: 1px solid var(--line); }
.actions a, .actions button { color: var(--accent); text-decoration: underline; text-underline-offset: 2px; background: none; border: 0; padding: .2rem 0; }
:focus-visible { outline: 3px solid #f59e0b; outline-offset: 2px; }
.status { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
@media print { :host { display: none !important; } }
@media (max-width: 480px) { :host(:not([around])) .who { display: none; } }
`;

// make returns an element with attributes and children. Texts become text nodes: a function's name may look like HTML.
function make(tag, attributes = {}, ...children) {
	const element = document.createElement(tag);
	for (const [name, value] of Object.entries(attributes)) {
		if (name === "onclick") element.addEventListener("click", value);
		else if (value !== undefined) element.setAttribute(name, value);
	}
	element.append(...children.filter((child) => child !== null));
	return element;
}

// mount adds the bar to an element. around is true for the page around the Space.
export function mount(parent, { around }) {
	const host = document.createElement("spacehost-bar");
	host.toggleAttribute("around", around);
	host.lang = "en"; // the page may have another language
	for (const [name, value] of around ? [] : [["position", "fixed"], ["display", "block"], ["visibility", "visible"], ["opacity", "1"], ["transform", "none"]]) {
		host.style.setProperty(name, value, "important"); // a page's own rules for all elements have precedence over :host
	}
	const root = host.attachShadow({ mode: "open" });
	const sheet = new CSSStyleSheet();
	sheet.replaceSync(style);
	root.adoptedStyleSheets = [sheet];
	const chip = make("button", { class: "chip", type: "button", "aria-expanded": "false", "aria-controls": "panel" });
	const panel = make("div", { class: "panel", id: "panel", hidden: "" });
	const status = make("p", { class: "status", role: "status" });
	root.append(make("section", { "aria-label": words.label }, chip, panel, status));
	chip.addEventListener("click", () => show(panel.hidden));
	root.addEventListener("keydown", (event) => {
		if (event.key !== "Escape" || panel.hidden) return;
		event.stopPropagation();
		show(false);
		chip.focus();
	});
	window.addEventListener("blur", () => around && show(false)); // the visitor has clicked into the frame
	parent.append(host);

	let bar = null; // the last answer
	let skew = 0; // of the host's clock, in milliseconds
	let lost = false;
	let retry = firstRetry;
	let timer, ticking, asking, said = "";

	const until = (at) => (at ? (new Date(at) - Date.now() - skew) / 1000 : null);
	const waiting = () => bar.calls.filter((c) => c.rank !== undefined).sort((a, b) => a.rank - b.rank);
	const running = () => bar.calls.filter((c) => c.rank === undefined);

	function show(open) {
		panel.hidden = !open;
		chip.setAttribute("aria-expanded", String(open));
		render();
	}

	function summary() {
		if (!bar) return lost ? words.lost : words.loading;
		const [first] = waiting();
		if (first) return words.place(first.rank, until(first.earliestStart));
		return running().length > 0 ? words.running : words.left(bar);
	}

	function render() {
		const text = summary();
		const mood = lost ? "lost" : !bar ? "" : waiting().length > 0 ? "waiting" : bar.signedIn && !bar.unattached ? "in" : "";
		chip.replaceChildren(make("span", { class: "dot " + mood }), ...(bar?.signedIn ? [make("span", { class: "who" }, bar.name)] : []), make("span", { class: bar?.signedIn ? "soft" : "" }, text));
		const label = bar?.signedIn ? `${bar.name}, ${text}` : text;
		chip.setAttribute("aria-label", panel.hidden ? words.open(label) : words.close(label));
		if (!panel.hidden) renderPanel();
		const [first] = bar ? waiting() : [];
		const say = first ? words.announce(first) : bar && running().length > 0 ? words.starts : "";
		if (say !== said) status.textContent = said = say;
		clearInterval(ticking);
		if (bar && !document.hidden && (bar.calls.length > 0 || !panel.hidden)) ticking = setInterval(render, 1000);
	}

	// renderPanel replaces the texts, and keeps the actions with the keyboard's focus while they stay the same.
	function renderPanel() {
		if (!bar) return panel.replaceChildren(make("p", {}, lost ? words.lostHint : words.loading));
		const lines = [
			lost ? words.lostHint : null,
			words.you(bar),
			bar.unattached ? words.unattached : null,
			...waiting().map((c) => words.waits(c, until(c.earliestStart))),
			...running().map((c) => words.runsNow(c, until(c.deadline))),
			words.quota(bar),
			bar.creditSeconds > 0 ? words.credits(bar) : null,
			bar.resetsAt && !bar.unlimited ? words.resets(Math.max(1, until(bar.resetsAt))) : null,
			bar.runs ? words.runs(bar.runs) : null,
			bar.maintenance ? bar.maintenance + "." : null,
		].filter((line) => line !== null);
		const key = JSON.stringify([bar.signedIn, bar.console, bar.payer, bar.unattached]);
		let actions = panel.querySelector(".actions");
		if (actions?.dataset.key !== key) {
			actions = renderActions();
			actions.dataset.key = key;
			panel.replaceChildren(make("div", {}), actions);
		}
		panel.firstChild.replaceChildren(...lines.map((line, at) => make("p", {}, at === (lost ? 1 : 0) ? make("strong", {}, line) : line)));
	}

	function renderActions() {
		const here = location.pathname + location.search + location.hash;
		const below = base.pathname.replace(/__spacehost\/$/, ""); // the Space's root
		const path = "/" + (here.startsWith(below) ? here.slice(below.length) : "");
		const to = (page, back) => `${new URL(page, base)}?to=${encodeURIComponent(back)}`;
		const signIn = to("login", around ? "/__spacehost/hub" : path);
		return make(
			"div", { class: "actions" },
			bar.unattached ? make("a", { href: to("hub", path) }, words.attach) : null,
			bar.signedIn ? make("button", { type: "button", onclick: signOut }, words.signOut) : bar.console ? make("a", { href: signIn }, words.signIn) : null,
			bar.console ? make("a", { href: bar.console + "/", target: "_blank", rel: "noopener noreferrer" }, words.console) : null,
			around ? null : make("button", { type: "button", onclick: remove }, words.hide),
		);
	}

	async function signOut() {
		try {
			await fetch(new URL("logout", base), { method: "POST" });
			location.reload();
		} catch {
			ask();
		}
	}

	function remove() {
		clearTimeout(timer);
		clearInterval(ticking);
		observer?.disconnect();
		colours.disconnect();
		document.removeEventListener("visibilitychange", onVisible);
		host.remove();
	}

	// ask requests the bar's values and plans the next request. A hidden page requests nothing.
	async function ask() {
		clearTimeout(timer);
		if (asking || document.hidden) return;
		asking = true;
		let pause = idle;
		try {
			const answer = await fetch(new URL(around ? "bar?around=1" : "bar", base), { signal: AbortSignal.timeout(20_000) });
			if (answer.status === 404 && !around) return remove(); // the bar was turned off
			if (!answer.ok) throw new Error(answer.statusText);
			bar = await answer.json();
			skew = new Date(bar.now) - Date.now();
			lost = false;
			retry = firstRetry;
			if (bar.calls.length > 0) pause = busy;
		} catch {
			lost = true;
			pause = retry;
			retry = Math.min(2 * retry, lastRetry);
		} finally {
			asking = false;
		}
		if (!host.isConnected) return;
		render();
		timer = setTimeout(ask, pause);
	}

	// soon plans a request for a change that this page has caused.
	function soon() {
		clearTimeout(timer);
		timer = setTimeout(ask, 300);
	}

	function onVisible() {
		if (document.hidden) {
			clearTimeout(timer);
			clearInterval(ticking);
		} else ask();
	}

	document.addEventListener("visibilitychange", onVisible);
	const observer = observe(around, soon);
	const colour = () => host.style.setProperty("color-scheme", scheme(around), "important");
	const colours = new MutationObserver(colour);
	colours.observe(document.body ?? document.documentElement, { attributes: true, attributeFilter: ["class"] });
	colour();
	render();
	ask();
}

// observe calls changed when this page has made a call or received its result. The call itself is not touched.
function observe(around, changed) {
	if (around || typeof PerformanceObserver === "undefined") return undefined;
	const observer = new PerformanceObserver((list) => {
		if (list.getEntries().some((entry) => /\/queue\/(join|data)(\?|$)/.test(entry.name))) changed();
	});
	observer.observe({ type: "resource" });
	return observer;
}

// scheme returns the colours of the page: Gradio marks its dark theme, which may differ from the browser's.
function scheme(around) {
	if (around || !window.gradio_config) return "light dark";
	return document.body?.classList.contains("dark") ? "dark" : "light";
}
