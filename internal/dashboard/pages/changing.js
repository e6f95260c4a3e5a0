// Parts of pages that change something: sending, refusals, confirmations and copies.
import { html, useEffect, useRef, useState } from "./vendor/htm-preact-3.1.1.js";
import { request } from "./session.js";
import { words } from "./words.js";

// useChange returns { send, busy, error, clear }. send(method, path, body) returns the host's answer, or undefined if it refuses: then
// error has its sentence until the next change.
export function useChange() {
	const [state, set] = useState({});
	const send = async (method, path, body) => {
		set({ busy: true });
		try {
			const answer = await request("api/spacehost/" + path, body, method);
			set({});
			return answer;
		} catch (error) {
			set({ error });
		}
	};
	return { ...state, send, clear: () => set({}) };
}

// useBusy returns [busy, run]. run(change) awaits a change; until it has ended, busy is true and other changes are ignored.
export function useBusy() {
	const [busy, set] = useState(false);
	const pending = useRef(false); // is true at once, while busy follows with the next drawing
	const run = async (change) => {
		if (pending.current) return;
		pending.current = true;
		set(true);
		try {
			return await change();
		} finally {
			pending.current = false;
			set(false);
		}
	};
	return [busy, run];
}

// Act is a button that is disabled while the change of its click is pending.
export function Act({ run, disabled, children, ...attributes }) {
	const [busy, once] = useBusy();
	return html`<button type="button" ...${attributes} disabled=${busy || disabled} onClick=${() => once(run)}>${children}</button>`;
}

// ReadOnly explains why a page has no buttons that change something.
export const ReadOnly = ({ may }) => !may && html`<p class="reason">${words.changing.readOnly}</p>`;

// Two shows a text with a small one below it, as one cell of a table.
export const Two = ({ first, second }) => html`<span>${first}${second && html`<br /><small>${second}</small>`}</span>`;

// Refused shows why the host has refused a change.
export const Refused = ({ of }) => of.error && html`<p role="alert">${of.error.message}</p>`;

// Confirm is a button that asks in its place before it runs. label names the object for screen readers. Its buttons are disabled until
// run has ended.
export function Confirm({ name, label, question, yes, run, busy }) {
	const [asks, ask] = useState(false);
	const [runs, once] = useBusy();
	const no = useRef(null);
	useEffect(() => void (asks && no.current?.focus()), [asks]);
	if (!asks) return html`<button type="button" class="plain" aria-label=${label} disabled=${busy} onClick=${() => ask(true)}>${name}</button>`;
	return html`<span class="confirm" role="group" aria-label=${question} onKeyDown=${(e) => e.key === "Escape" && ask(false)}>
		<span>${question}</span>
		<button type="button" class="danger" disabled=${busy || runs} onClick=${() => once(async () => (await run(), ask(false)))}>${yes}</button>
		<button type="button" class="plain" ref=${no} onClick=${() => ask(false)}>${words.changing.cancel}</button>
	</span>`;
}

// Copy copies a text. Without the permission, or over plain http, it selects the text instead.
export function Copy({ text, of }) {
	const [copied, set] = useState(false);
	const copy = async () => {
		try {
			await navigator.clipboard.writeText(text);
			set(true);
			setTimeout(() => set(false), 2000);
		} catch {
			getSelection().selectAllChildren(of.current);
		}
	};
	return html`<button type="button" class="plain" onClick=${copy}>${copied ? words.changing.copied : words.changing.copy}</button>`;
}

// Copied shows a text in monospace with its Copy.
export function Copied({ title, text }) {
	const of = useRef(null);
	return html`<div class="copied">
		${title && html`<span class="soft">${title}</span>`}
		<code ref=${of}>${text}</code><${Copy} text=${text} of=${of} />
	</div>`;
}
