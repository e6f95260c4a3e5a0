// The pages of the console, in the order of the navigation: the least role that sees each, the property of `me` without which it is left out, and
// its module, which loads when the page is opened.

import { visible } from "./visible.js";

export const pages = [
	{ name: "home", role: "visitor", load: async () => (await import("./home.js")).Home },
	{ name: "ledger", role: "visitor", load: async () => (await import("./ledger.js")).Ledger },
	{ name: "spaces", role: "member", load: async () => (await import("./spaces.js")).Spaces },
	{ name: "tokens", role: "member", load: async () => (await import("./tokens.js")).Tokens },
	{ name: "gpus", role: "admin", load: async () => (await import("./gpus.js")).GPUs },
	{ name: "nodes", role: "admin", needs: "nodes", load: async () => (await import("./nodes.js")).Nodes },
	{ name: "line", role: "admin", load: async () => (await import("./line.js")).Line },
	{ name: "people", role: "admin", load: async () => (await import("./people.js")).People },
	{ name: "usage", role: "admin", load: async () => (await import("./usage.js")).Usage },
	{ name: "audit", role: "admin", load: async () => (await import("./audit.js")).Audit },
	{ name: "settings", role: "admin", load: async () => (await import("./settings.js")).Settings },
];

const roles = ["visitor", "member", "admin"];

// routeOf returns the page that a fragment of the address names, and what follows it: "#spaces/demo" is the page spaces with the detail
// "demo". Anyone can type a fragment that is not encoded. The detail is compared with names that parse has made visible, so it is made
// visible too.
export function routeOf(fragment) {
	const [name, ...rest] = fragment.slice(1).split("/");
	const detail = rest.join("/");
	try {
		return { name: name || "home", detail: visible(decodeURIComponent(detail)) };
	} catch {
		return { name: name || "home", detail: visible(detail) };
	}
}

// pagesOf returns the pages that a person sees.
export const pagesOf = (me) => pages.filter((page) => roles.indexOf(page.role) <= roles.indexOf(me.role) && (!page.needs || me[page.needs]));
