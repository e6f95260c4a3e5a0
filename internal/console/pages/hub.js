// The page around a Space, which stands for the Hub's. It gives the Space's page the visitor's token for each call, as the Hub does
// (@gradio/client, client/js/src/helpers/zerogpu.ts).
import { mount } from "./panel.js";

const supports = "supports-zerogpu-headers";
const frame = document.querySelector("iframe");

// headers returns the headers of one call. A Space's page waits for them, so a failure is answered too: the call pays by address.
async function headers() {
	try {
		const answer = await fetch(new URL("token", import.meta.url), { method: "POST", signal: AbortSignal.timeout(10_000) });
		const { token } = await answer.json();
		return token ? { "x-ip-token": token } : {};
	} catch {
		return {};
	}
}

window.addEventListener("message", async (event) => {
	if (event.source !== frame.contentWindow || event.origin !== location.origin) return;
	if (event.data === supports) frame.contentWindow.postMessage(supports, location.origin);
	if (event.data === "zerogpu-headers" && event.ports.length === 1) event.ports[0].postMessage(await headers());
});

mount(document.querySelector("header"), { around: true });
frame.src = frame.dataset.address;
