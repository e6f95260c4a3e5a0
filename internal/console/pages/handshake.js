// Requests the visitor's token from the page around this one (hub.js), in identity mode hub. Gradio's own code does so on the Hub, but
// only to https://huggingface.co, and Gradio 6 only at a host name below hf.space.
(() => {
	const around = window.parent;
	try {
		if (around === window || around.location.origin !== location.origin || !around.location.pathname.endsWith("/__spacehost/hub")) return;
	} catch {
		return; // a frame of another site
	}
	const supports = "supports-zerogpu-headers";
	const hub = /^https:\/\/(huggingface\.co|moon-[^/]*\.dev\.spaces\.huggingface\.tech)\/?$/;

	// Gradio 5 and an old @gradio/client post to the Hub's origin, and wait without end for an answer. A page of the Hub is of another site, so nothing but
	// its messages can be reached.
	const standIn = {
		postMessage(message, target, ports) {
			const origin = typeof target === "string" && hub.test(target) ? location.origin : target;
			around.postMessage(message, origin, ports);
		},
	};
	Object.defineProperty(window, "parent", { value: standIn, configurable: true, enumerable: true });

	const patience = 10_000; // milliseconds; a call without an answer pays by address
	let answered;
	const supported = new Promise((resolve) => {
		answered = resolve;
		setTimeout(resolve, patience);
	});
	window.addEventListener("message", (event) => {
		if (event.source !== around || event.origin !== location.origin || event.data !== supports) return;
		window.supports_zerogpu_headers = true;
		answered();
	});
	around.postMessage(supports, location.origin);

	const request = () =>
		new Promise((resolve) => {
			const { port1, port2 } = new MessageChannel();
			port1.onmessage = ({ data }) => {
				port1.close();
				resolve(data);
			};
			setTimeout(resolve, patience, {});
			around.postMessage("zerogpu-headers", location.origin, [port2]);
		});

	// @gradio/client of Gradio 6 marks its calls, and adds the headers of the page around it to them. It does not ask at this host name.
	// Gradio 4's own page does so for configurations with a space_id, which no host but the Hub has (docs/design/0016-space-id.md).
	const requests = (headers) => headers.has("x-gradio-user") || /^4\./.test(window.gradio_config?.version ?? "");
	const fetchOf = window.fetch;
	window.fetch = async function (input, init) {
		const headers = new Headers(init?.headers ?? (input instanceof Request ? input.headers : undefined));
		const address = new URL(input instanceof Request ? input.url : input, document.baseURI);
		const method = (init?.method ?? (input instanceof Request ? input.method : "GET")).toUpperCase();
		const isJoin = method === "POST" && address.origin === location.origin && address.pathname.endsWith("/queue/join");
		if (!isJoin || !requests(headers) || headers.has("x-ip-token")) return fetchOf.apply(this, arguments);
		await supported;
		for (const [name, value] of Object.entries(await request())) headers.set(name, value);
		return fetchOf.call(this, input, { ...init, headers });
	};
})();
