// How programs call a Space: snippets with its real endpoints.
import { html, useState } from "./vendor/htm-preact-3.1.1.js";
import { Reading, useRead } from "./parts.js";
import { words } from "./words.js";

const w = words.spaces;

// Calls shows a snippet for each language. The endpoints are read again when the Space has started.
export function Calls({ space }) {
	const read = useRead(`spaces/${encodeURIComponent(space.name)}/api`, [space.stage]);
	return html`<section aria-labelledby="calls"><h2 id="calls">${w.calls}</h2><${Reading} of=${read} show=${(api) => html`<${Snippets} api=${api} />`} /></section>`;
}

function Snippets({ api }) {
	const [language, setLanguage] = useState("python");
	const [name, setName] = useState("");
	if (api.unknown) return html`<p class="none">${w.callsUnknown}</p>`;
	if (api.endpoints.length === 0) return html`<p class="none">${w.callsNone}</p>`;
	const endpoint = api.endpoints.find((e) => e.name === name) ?? api.endpoints[0];
	const text = languages[language].write(api, endpoint);
	return html`<div>
		<div class="choices bar">
			<label>${w.endpoint} <select value=${endpoint.name} onChange=${(e) => setName(e.target.value)}>${api.endpoints.map((e) => html`<option value=${e.name}>${e.name}</option>`)}</select></label>
			<span class="choices" role="group" aria-label=${w.language}>${Object.entries(languages).map(([key, l]) => html`<button class="plain" aria-pressed=${key === language} onClick=${() => setLanguage(key)}>${l.name}</button>`)}</span>
		</div>
		<${Code} text=${text} />
		<p><small>${w.callsToken}</small></p>
	</div>`;
}

function Code({ text }) {
	const [copied, setCopied] = useState("");
	return html`<div class="code"><pre tabindex="0" aria-label=${w.snippet}><code>${text}</code></pre>
		<button class="plain" onClick=${async () => ((await copy(text)) ? setCopied(text) : setCopied(""))}>${copied === text ? w.copied : w.copy}</button></div>`;
}

// copy puts a text on the clipboard. navigator.clipboard exists only at a secure address.
async function copy(text) {
	try {
		await navigator.clipboard.writeText(text);
		return true;
	} catch {
		const area = Object.assign(document.createElement("textarea"), { value: text });
		document.body.append(area);
		area.select();
		const done = document.execCommand("copy");
		area.remove();
		return done;
	}
}

const TOKEN = "Bearer sph_...";
const isFile = (value) => Boolean(value) && typeof value === "object" && value.meta?._type === "gradio.FileData";
const isPlainName = (name) => /^[A-Za-z_]\w*$/.test(name);

// value returns what a snippet passes for a parameter.
const valueOf = (p) => (p.hasDefault && p.default !== null && p.default !== undefined ? p.default : (p.example ?? null));

// python writes a JSON value as a Python literal.
function python(value) {
	if (value === null) return "None";
	if (typeof value === "boolean") return value ? "True" : "False";
	if (isFile(value)) return `handle_file(${JSON.stringify(value.url ?? value.path)})`;
	if (Array.isArray(value)) return `[${value.map(python).join(", ")}]`;
	if (typeof value === "object") return `{${Object.entries(value).map(([k, v]) => `${JSON.stringify(k)}: ${python(v)}`).join(", ")}}`;
	return JSON.stringify(value);
}

function javascript(value) {
	if (isFile(value)) return `handle_file(${JSON.stringify(value.url ?? value.path)})`;
	if (Array.isArray(value)) return `[${value.map(javascript).join(", ")}]`;
	if (value && typeof value === "object") return `{ ${Object.entries(value).map(([k, v]) => `${JSON.stringify(k)}: ${javascript(v)}`).join(", ")} }`;
	return JSON.stringify(value);
}

const usesFiles = (endpoint) => endpoint.parameters.some((p) => JSON.stringify(valueOf(p))?.includes("gradio.FileData"));

// shell quotes a text for a POSIX shell.
const shell = (text) => "'" + text.replaceAll("'", "'\\''") + "'";

const languages = {
	python: {
		name: "Python",
		write(api, e) {
			const named = e.parameters.every((p) => isPlainName(p.name));
			const lines = e.parameters.map((p) => `    ${named ? `${p.name}=` : ""}${python(valueOf(p))},${note(p, "#")}`);
			return [
				`from gradio_client import Client${usesFiles(e) ? ", handle_file" : ""}`,
				"",
				`client = Client(${JSON.stringify(api.url)}, headers={"Authorization": "${TOKEN}"})`,
				"result = client.predict(",
				...lines,
				`    api_name=${JSON.stringify(e.name)},`,
				")",
				"print(result)",
			].join("\n");
		},
	},
	javascript: {
		name: "JavaScript",
		write(api, e) {
			const lines = e.parameters.map((p) => `  ${isPlainName(p.name) ? p.name : JSON.stringify(p.name)}: ${javascript(valueOf(p))},${note(p, "//")}`);
			return [
				`import { Client${usesFiles(e) ? ", handle_file" : ""} } from "@gradio/client";`,
				"",
				`const client = await Client.connect(${JSON.stringify(api.url)}, { headers: { Authorization: "${TOKEN}" } });`,
				lines.length ? `const result = await client.predict(${JSON.stringify(e.name)}, {` : `const result = await client.predict(${JSON.stringify(e.name)});`,
				...lines,
				...(lines.length ? ["});"] : []),
				"console.log(result.data);",
			].join("\n");
		},
	},
	curl: {
		name: "curl",
		write(api, e) {
			const url = `${api.url.replace(/\/$/, "")}${api.prefix}/call${e.name}`;
			const header = `-H "Authorization: ${TOKEN}"`;
			return [
				`EVENT=$(curl -s ${shell(url)} ${header} -H "Content-Type: application/json" \\`,
				`  -d ${shell(JSON.stringify({ data: e.parameters.map(valueOf) }))} | awk -F'"' '{print $4}')`,
				`curl -sN ${shell(url)}/$EVENT ${header}`,
			].join("\n");
		},
	},
};

// note describes a parameter in a comment.
const note = (p, mark) => ` ${mark} ${[p.label, p.type].filter(Boolean).join(": ").replace(/\s+/g, " ").slice(0, 80)}`;
