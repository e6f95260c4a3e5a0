// Tests of functions of the pages that need no browser. TestFunctionsOfPages runs them beside a copy of the pages.
import test from "node:test";
import assert from "node:assert/strict";
import { clock, countdown } from "./words.js";
import { hostNow, setHostNow } from "./clock.js";
import { timesOf } from "./times.js";
import { choose, sendEach } from "./line.js";
import { merge } from "./ledger.js";
import { stack } from "./usage.js";

test("a countdown is from a second to a day, and never early", () => {
	for (const [seconds, want] of [
		[86400, "24:00:00"], [90000, "24:00:00"], [86399.999, "24:00:00"], [3599.001, "1:00:00"], [3599, "0:59:59"], [60, "0:01:00"], [59.2, "0:01:00"],
		[1.001, "0:00:02"], [1, "0:00:01"], [0.4, "0:00:01"], [0.001, "0:00:01"], [0, "0:00:01"], [-0.2, "0:00:01"], [-500, "0:00:01"],
	]) {
		assert.equal(countdown(seconds), want, `${seconds} s`);
	}
	let shown = Infinity;
	for (let left = 10_000; left > -3_000; left -= 7) { // by the millisecond
		const text = countdown(left / 1000);
		const [h, m, s] = text.split(":").map(Number);
		assert.notEqual(text, "0:00:00");
		assert.ok(3600 * h + 60 * m + s >= left / 1000, `${text} shows less than the ${left} ms that are missing`);
		assert.ok(3600 * h + 60 * m + s <= shown, `${text} after ${shown} s`);
		shown = 3600 * h + 60 * m + s;
	}
	assert.equal(clock(0), "0:00:00"); // of a call that has ended
});

test("a time begins and ends with whole hours or days", () => {
	const now = Date.parse("2026-11-20T14:25:30+01:00");
	assert.deepEqual(timesOf("day", {}, now), { from: "2026-11-19T14:00:00Z", to: "2026-11-20T14:00:00Z", bucket: 3600 });
	assert.deepEqual(timesOf("week", {}, now), { from: "2026-11-13T23:00:00Z", to: "2026-11-20T23:00:00Z", bucket: 86400 });
	const month = timesOf("month", {}, now);
	assert.deepEqual([month.from, month.to, month.bucket, month.days.length], ["2026-10-21T22:00:00Z", "2026-11-20T23:00:00Z", 3600, 30]); // summer time ends
	assert.deepEqual(timesOf("all", {}, now), { from: "", to: "", bucket: 86400 });
	const oneDay = { from: "2026-11-19T23:00:00Z", to: "2026-11-20T23:00:00Z", bucket: 3600 };
	assert.deepEqual(timesOf("dates", { from: "2026-11-20", to: "2026-11-20" }, now), oneDay);
	const two = timesOf("dates", { from: "2026-11-01", to: "2026-11-10" }, now);
	assert.deepEqual(two, { from: "2026-10-31T23:00:00Z", to: "2026-11-10T23:00:00Z", bucket: 86400 });
	assert.deepEqual(timesOf("dates", { from: "2026-11-10", to: "2026-11-01" }, now), two); // exchanged
	assert.deepEqual(timesOf("dates", { from: "2026-11-10", to: "" }, now), timesOf("month", {}, now)); // not complete yet
	const long = timesOf("dates", { from: "2016-01-01", to: "2026-01-01" }, now);
	assert.ok((Date.parse(long.to) - Date.parse(long.from)) / 1000 / long.bucket <= 400, "a bar for each day of ten years");
});

test("days begin at midnight, also after a change of summer time", () => {
	for (const [what, dates, length] of [
		["it ends", { from: "2026-10-22", to: "2026-10-28" }, 7 * 24 + 1],
		["it begins", { from: "2026-03-27", to: "2026-04-02" }, 7 * 24 - 1],
		["on the first day", { from: "2026-10-25", to: "2026-10-28" }, 4 * 24 + 1],
		["on the last day", { from: "2026-03-20", to: "2026-03-29" }, 10 * 24 - 1],
		["in the longest time", { from: "2026-10-01", to: "2026-11-10" }, 41 * 24 + 1],
	]) {
		const { from, to, bucket, days } = timesOf("dates", dates);
		const parts = (Date.parse(to) - Date.parse(from)) / 1000 / bucket;
		assert.equal(parts, length, what);
		assert.ok(parts <= 1000, `${what}: the host refuses ${parts} parts`);
		for (const at of days) assert.equal(new Date(at * 1000).getHours(), 0, `${what}: a day begins at ${new Date(at * 1000)}`);
		const u = { from, bucketSeconds: bucket, otherRows: 0 };
		const { data } = stack([{ buckets: Array.from({ length: parts }, () => ({ calls: 1 })) }], u, "calls", days);
		assert.deepEqual(data[0], days, what);
		assert.deepEqual(data[1], days.map((at, i) => ((days[i + 1] ?? Date.parse(to) / 1000) - at) / 3600), what); // hours of each day
		assert.equal(data[1].reduce((sum, n) => sum + n), parts, what);
	}
	assert.equal(timesOf("dates", { from: "2026-10-31", to: "2026-12-01" }).days, undefined); // no change
	assert.equal(timesOf("dates", { from: "2026-10-24", to: "2026-10-25" }).bucket, 3600); // two days are hours anyway
	assert.equal(timesOf("dates", { from: "2026-01-01", to: "2026-12-31" }).bucket, 86400); // too many hours
});

test("the time is the host's", () => {
	const off = () => hostNow() - Date.now();
	assert.equal(off(), 0);
	setHostNow(new Date(Date.now() + 300e3).toISOString());
	assert.ok(Math.abs(off() - 300e3) < 1000);
});

test("newest lines are put before those that were read, without a gap", () => {
	const lines = (from, to) => Array.from({ length: from - to + 1 }, (_, i) => ({ id: from - i }));
	const first = merge({}, "q", lines(500, 401));
	assert.deepEqual([first.all.length, first.more], [100, true]);
	const older = { ...first, all: [...first.all, ...lines(400, 301)] };
	const after = merge(older, "q", lines(510, 411));
	assert.deepEqual(after.all, lines(510, 301));
	assert.equal(after.more, true);
	const gap = merge(older, "q", lines(900, 801));
	assert.deepEqual(gap.all, lines(900, 801));
	const whole = merge(older, "q", lines(30, 1)); // the whole ledger
	assert.deepEqual([whole.all.length, whole.more], [30, false]);
	assert.deepEqual(merge(older, "other", lines(7, 1)).all, lines(7, 1)); // of another filter
});

test("bars are stacked: each series is the sum of the rows up to it", () => {
	const row = (label, ...used) => ({ label, color: `--${label}`, buckets: used.map((usedSeconds) => ({ usedSeconds })) });
	const u = { from: "2026-11-20T12:00:00Z", bucketSeconds: 3600, otherRows: 0 };
	const two = stack([row("a", 1, 2), row("b", 10, 20)], u, "usedSeconds");
	assert.deepEqual(two.data, [[1795176000, 1795179600], [11, 22], [1, 2]]);
	assert.deepEqual(two.series, ["--b", "--a"]);
	const many = stack([..."abcdefgh"].map((name) => row(name, 1)), u, "usedSeconds");
	assert.equal(many.drawn.length, 7);
	assert.equal(many.data[1][0], 8); // the tallest has all
	assert.equal(many.drawn.at(-1).label, "2 others");
	const left = stack([..."abcdefg"].map((name) => row(name, 1)), { ...u, otherRows: 5 }, "usedSeconds"); // g is the row of five others
	assert.equal(left.drawn.at(-1).label, "5 others");
	assert.deepEqual(stack([row("a", 1)], u, "calls").data[1], [0]);
});

const gpus = [
	{ uuid: "GPU-a", index: 0 },
	{ uuid: "GPU-b", index: 1, drained: { operator: true, reason: "new fan" } },
	{ uuid: "GPU-c", index: 2, drained: { operator: false, reason: "Xid 79" }, driverErrors: [{ xid: 79, condemns: true }] },
	{ uuid: "GPU-d", index: 3, planned: { operator: true, from: "2026-12-01T00:00:00Z" }, driverErrors: [{ xid: 13, condemns: false }] },
	{ uuid: "GPU-e", index: 4, drained: { operator: true, reason: "new fan" }, driverErrors: [{ xid: 79, condemns: true }] }, // it hides the drain of the host
];

test("all GPUs are drained but those that are, and hardware errors keep a GPU closed", () => {
	const chosen = choose(gpus);
	const indexes = (of) => of.map((g) => g.index);
	assert.deepEqual([indexes(chosen.drain), indexes(chosen.return), indexes(chosen.keep)], [[0, 3], [1, 3], [2, 4]]);
});

test("a refusal does not keep a change from the other GPUs", async () => {
	const asked = [];
	const send = async (gpu) => {
		asked.push(gpu.index);
		if (gpu.index === 1) throw new Error("the lease database is read-only");
	};
	await assert.rejects(sendEach(gpus.slice(0, 3), send), { message: "2 of 3 GPUs were changed. Refused: GPU 1: the lease database is read-only" });
	assert.deepEqual(asked, [0, 1, 2]);
	assert.equal((await sendEach(gpus.slice(2), send)).length, 3);
});
