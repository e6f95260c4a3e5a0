// Makes many calls with the real @gradio/client: the order is that of fidelity.py, the answer too, with all that the
// client says of a call: values, stages, logs.
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Client, handle_file } from "@gradio/client";

const order = JSON.parse(readFileSync(0, "utf8"));

function given(value) {
	if (Array.isArray(value)) return value.map(given);
	if (value === null || typeof value !== "object") return value;
	if ("$file" in value) return handle_file(join(order.files, value.$file));
	return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, given(one)]));
}

async function told(value) {
	if (Array.isArray(value)) return Promise.all(value.map(told));
	if (value === null || typeof value !== "object") return value;
	const made = {};
	for (const [key, one] of Object.entries(value)) made[key] = await told(one);
	if (value.path && value.url && !value.is_stream) {
		const answer = await fetch(value.url);
		made.sha256 = createHash("sha256").update(Buffer.from(await answer.arrayBuffer())).digest("hex");
		made.status = answer.status;
	}
	return made;
}

const says = ["type", "stage", "success", "code", "queue", "size", "position", "message", "title", "progress_data", "log", "level", "duration", "visible", "data"];

const patience = 30000;

async function call(client, one) {
	const seen = [];
	const late = new Promise((_, reject) => setTimeout(() => reject(new Error("no end within 30 s")), patience));
	try {
		await Promise.race([listen(client, one, seen), late]);
	} catch (error) {
		seen.push({ thrown: String(error?.message ?? error) });
	}
	return seen;
}

async function listen(client, one, seen) {
	for await (const message of client.submit("/" + one.name, given(one.args))) {
		const kept = {};
		for (const key of says) if (message[key] !== undefined) kept[key] = await told(message[key]);
		seen.push(kept);
	}
}

for (const page of order.pages) {
	try {
		const client = await Client.connect(order.url + page.path, { events: ["data", "status", "log"], ...(page.auth ? { auth: page.auth } : {}) });
		for (const one of page.calls) console.log(JSON.stringify({ name: one.name, seen: await call(client, one) }));
		client.close();
	} catch (error) {
		console.log(JSON.stringify({ name: page.path, error: String(error?.message ?? error) }));
	}
}
process.exit(0);
