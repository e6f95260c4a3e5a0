// The bearer of this tab and the requests that carry it. The console sets no cookie.

import { visible } from "./visible.js";

const KEY = "bearer";

// hidden finds in JSON what visible replaces. Most texts have none of it, so their strings need no second look.
const hidden = /[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]|\\[bfr]|\\u00[01]|\\u007f|\\u202[89]/i;

// parse reads JSON of the host. A Space, a person or an operator has chosen many of its strings: a control character in one could not be
// seen, and one that changes the direction of writing would show another text than the page has. Both become visible here, for every page.
export const parse = (text) => JSON.parse(text, hidden.test(text) ? (_, value) => (typeof value === "string" ? visible(value) : value) : undefined);

export const hasBearer = () => Boolean(sessionStorage.getItem(KEY));
export const setBearer = (bearer) => sessionStorage.setItem(KEY, bearer);
export const forget = () => sessionStorage.removeItem(KEY);

function headers(more) {
	const bearer = sessionStorage.getItem(KEY);
	return { ...(bearer && { "X-Hf-Authorization": "Bearer " + bearer }), ...more };
}

// request sends JSON and returns JSON. A path is relative to the page, which may be below a sub-path. The error of a refused request has the host's sentence and its status.
export async function request(path, body, method = body ? "POST" : "GET", signal) {
	const answer = await fetch(path, {
		method,
		signal,
		headers: headers(body && { "Content-Type": "application/json" }),
		body: body && JSON.stringify(body),
		credentials: "omit",
	});
	if (!answer.ok) throw Object.assign(new Error(await sentence(answer)), { status: answer.status });
	return parse(await answer.text()); // an answer that breaks off is an error, not an empty value
}

// sentence returns why the host has refused a request.
async function sentence(answer) {
	const json = await answer.text().then(parse).catch(() => ({}));
	return json.detail ?? json.message ?? answer.statusText;
}

// streamOf yields the events of a request that answers with Server-Sent Events. The end of the loop closes the connection.
export async function* streamOf(path, body) {
	const stop = new AbortController();
	try {
		const answer = await fetch(path, { method: "POST", signal: stop.signal, headers: headers({ "Content-Type": "application/json" }), body: JSON.stringify(body), credentials: "omit" });
		if (!answer.ok) throw new Error(await sentence(answer));
		yield* events(answer.body, () => {});
	} finally {
		stop.abort();
	}
}

// download saves a file of the host under a name. The request carries the bearer, so it cannot be a link.
export async function download(path, name) {
	const answer = await fetch(path, { headers: headers(), credentials: "omit" });
	if (!answer.ok) throw new Error(await sentence(answer));
	save(name, await answer.blob()); // fails if the host has ended the connection before the end
}

// save offers a Blob as a file.
export function save(name, blob) {
	const link = document.createElement("a");
	link.href = URL.createObjectURL(blob);
	link.download = name;
	link.click();
	URL.revokeObjectURL(link.href);
}

// redeemLink exchanges the one-time code of the link that the host prints, and removes it from the address bar. It returns whether the
// address had a code.
export async function redeemLink() {
	const code = new URLSearchParams(location.hash.slice(1)).get("code");
	if (!code) return false;
	history.replaceState(null, "", location.pathname + location.search);
	const { bearer } = await request("login/link", { code });
	setBearer(bearer);
	return true;
}

// signIn signs the person in at a Space, and opens the path to there. The code goes in a form, because a URL is kept in the history.
export async function signIn({ space, origin, path, to }) {
	const { action, code } = await request("login/code", { space, origin, path });
	const form = document.createElement("form");
	form.method = "post";
	form.action = action;
	for (const [name, value] of Object.entries({ code, to })) {
		const field = document.createElement("input");
		Object.assign(field, { type: "hidden", name, value });
		form.append(field);
	}
	document.body.append(form);
	form.submit();
}

// choiceOf returns what signIn needs for a Space as the host lists it.
export function choiceOf({ name, url, page }) {
	const at = new URL(url);
	return { space: name, origin: at.origin, path: at.pathname.replace(/\/$/, ""), to: page.slice(url.length) || "/" };
}

// The host sends a line each ten seconds. After this silence in milliseconds the connection is dead, which the browser itself may
// notice only minutes later.
const SILENCE = 25000;

// A page that was hidden for this time closes its stream: a browser opens six connections to a host at most, so the seventh open tab
// would wait for ever. A page that the browser keeps for "back" closes it at once.
const HIDDEN = 30000;

// stream reads the changes of the host until the page closes. It connects again after a pause, and asks only for what has changed
// since. on(topic, value) receives a value, state("live" | "lost" | "ended", why) the state of the connection, and why it was refused.
export async function stream(on, state, closed) {
	let last = "";
	for (let pause = 500; !closed.aborted; pause = Math.min(2 * pause, 10000)) {
		const dead = new AbortController();
		const drop = () => dead.abort();
		let timer = setTimeout(drop, SILENCE);
		const alive = () => {
			clearTimeout(timer);
			timer = setTimeout(drop, SILENCE);
		};
		let away;
		const turn = () => {
			clearTimeout(away);
			if (document.hidden) away = setTimeout(drop, HIDDEN);
		};
		closed.addEventListener("abort", drop);
		document.addEventListener("visibilitychange", turn);
		addEventListener("pagehide", drop);
		let why;
		try {
			const answer = await fetch("api/spacehost/changes", {
				headers: headers(last && { "Last-Event-ID": last }),
				credentials: "omit",
				signal: dead.signal,
			});
			if (answer.status === 401) return state("ended");
			if (!answer.ok) why = await sentence(answer);
			else {
				pause = 500;
				state("live");
				for await (const event of events(answer.body, alive)) {
					if (event.type === "ended") return state("ended");
					on(event.type, parse(event.data));
					last = event.id;
				}
			}
		} catch {
			// the connection is lost, or the page has closed it
		} finally {
			clearTimeout(timer);
			clearTimeout(away);
			closed.removeEventListener("abort", drop);
			document.removeEventListener("visibilitychange", turn);
			removeEventListener("pagehide", drop);
		}
		if (closed.aborted) return;
		if (document.hidden) await shown(closed);
		else {
			state("lost", why);
			await new Promise((done) => setTimeout(done, pause));
		}
	}
}

// shown waits until the page is visible again or closed.
function shown(closed) {
	return new Promise((done) => {
		const end = () => {
			if (document.hidden && !closed.aborted) return;
			document.removeEventListener("visibilitychange", end);
			closed.removeEventListener("abort", end);
			done();
		};
		document.addEventListener("visibilitychange", end);
		closed.addEventListener("abort", end);
	});
}

// events yields the Server-Sent Events of a body, and calls alive for whatever arrives. EventSource cannot send a bearer.
async function* events(body, alive) {
	const reader = body.pipeThrough(new TextDecoderStream()).getReader();
	let text = "";
	for (;;) {
		const { value, done } = await reader.read();
		if (done) return;
		alive();
		text += value;
		const blocks = text.split("\n\n");
		text = blocks.pop();
		for (const block of blocks) {
			const event = {};
			for (const line of block.split("\n")) {
				const at = line.indexOf(": ");
				if (at > 0) event[line.slice(0, at)] = line.slice(at + 2);
			}
			if (event.data) yield { type: event.event ?? "message", id: event.id, data: event.data };
		}
	}
}
