// A question before a change: a dialog with fields.
import { html, useRef } from "./vendor/htm-preact-3.1.1.js";
import { useBusy } from "./changing.js";
import { words } from "./words.js";

// Ask is a button that opens a dialog. It is disabled while a change is pending.
export function Ask({ open, label, act, ...question }) {
	const dialog = useRef(null);
	const [busy, once] = useBusy();
	return html`<span>
		<button class="plain" aria-label=${label} disabled=${busy} onClick=${() => dialog.current.showModal()}>${open}</button>
		<${Question} ...${question} dialog=${dialog} act=${(values) => once(() => act(values))} />
	</span>`;
}

// Question is the dialog itself. fields are [name, label, attributes of the input]; act gets their values when the dialog has closed. If its
// answer is undefined, the host has refused, and its sentence is at the top of the page: the fields keep what was typed.
export function Question({ dialog, title, text, fields = [], confirm, danger, act, closed }) {
	const send = async (event) => {
		event.preventDefault();
		const values = Object.fromEntries(new FormData(event.target));
		dialog.current.close();
		if ((await act(values)) !== undefined) event.target.reset();
	};
	return html`
		<dialog ref=${dialog} aria-label=${title} onClose=${closed}>
			<form onSubmit=${send}>
				<h2>${title}</h2>
				<p>${text}</p>
				${fields.map(([name, fieldLabel, attributes]) => html`<label>${fieldLabel} <input name=${name} autocomplete="off" ...${attributes} /></label>`)}
				<p class="actions"><button class=${danger ? "danger" : ""}>${confirm}</button> <button type="button" class="plain" onClick=${() => dialog.current.close()}>${words.gpus.close}</button></p>
			</form>
		</dialog>
	`;
}

// drainFields are the fields of a drain, and drainRequest its request. Times are of the browser's zone.
export const drainFields = () => [
	["reason", words.drainReason, { maxlength: 200 }],
	["from", words.gpus.from, { type: "datetime-local" }],
	["until", words.gpus.untilField, { type: "datetime-local" }],
];
export const drainRequest = ({ reason, from, until }) => ({ reason, ...(from && { from: new Date(from).toISOString() }), ...(until && { until: new Date(until).toISOString() }) });
