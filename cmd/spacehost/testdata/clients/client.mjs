// Calls every function of hello-zerogpu with the real @gradio/client and prints what came, as one JSON object.
import { Client } from "@gradio/client";

const client = await Client.connect(process.argv[2], { events: ["data", "status", "log"] });

async function call(api, args) {
	const seen = { steps: [], logs: [], progress: [] };
	for await (const message of client.submit(api, args)) {
		if (message.type === "data") seen.steps.push(message.data[0]);
		if (message.type === "log") seen.logs.push({ log: message.log, title: message.title, level: message.level });
		if (message.type === "status") {
			for (const unit of message.progress_data ?? []) seen.progress.push([unit.index, unit.length, unit.desc]);
			if (message.stage === "error") seen.error = { message: message.message, title: message.title };
		}
	}
	return seen;
}

const results = {
	greet: await call("/greet", ["js"]),
	picture: await call("/picture", [0.5]),
	count: await call("/count", [3]),
	steps: await call("/steps", [3]),
	sleep: await call("/sleep", [1]),
	notify: await call("/notify", ["from js"]),
	overstay: await call("/overstay", [30])
};
console.log(JSON.stringify(results));
process.exit(0);
