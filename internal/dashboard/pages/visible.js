// Characters that act on a text instead of being shown.

// visible writes each control character other than tab and line feed, and each character that changes the direction of writing, as a
// symbol (␛) or as its number (‹U+202E›).
export const visible = (text) =>
	text.replace(/[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g, (c) => {
		const code = c.charCodeAt(0);
		if (code < 0x20) return String.fromCharCode(0x2400 + code);
		if (code === 0x7f) return "␡";
		return `‹U+${code.toString(16).toUpperCase().padStart(4, "0")}›`;
	});
