// Connects with the real @gradio/client and a token, and prints the URLs that it requests, as a JSON list. Arguments: URL TOKEN.
const requested = [];
const original = globalThis.fetch;
globalThis.fetch = (input, init) => {
	const url = String(input?.url ?? input);
	requested.push(url);
	return new URL(url).hostname === "huggingface.co" ? Promise.reject(new TypeError("not sent")) : original(input, init);
};
const { Client } = await import("@gradio/client");
const client = await Client.connect(process.argv[2], { token: process.argv[3] });
await client.predict("/echo", ["x"]);
console.log(JSON.stringify(requested));
process.exit(0);
