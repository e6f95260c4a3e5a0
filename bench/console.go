package main

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/chromedp/chromedp"
	_ "github.com/mattn/go-sqlite3" // the driver of the host's database
)

// weekOfLeases is the number of leases that the timeline of the console shows.
const weekOfLeases = 100_000

// consoleTimeline measures the timeline of a week of 100,000 leases in Chromium: the time until the week is drawn, and the frames while
// the view moves.
func consoleTimeline(ctx context.Context, b *bench, s *target) (values, error) {
	if b.chromium == "" || s.name == stock {
		return values{}, nil
	}
	state := filepath.Join(s.home, "state")
	if err := seedWeek(ctx, filepath.Join(state, "spacehost.db")); err != nil {
		return nil, fmt.Errorf("fill the database with leases: %w", err)
	}
	link, err := exec.CommandContext(ctx, b.spacehost, "login", "--state", state).Output()
	if err != nil {
		return nil, fmt.Errorf("create a link to the console: %w", err)
	}
	tab, end, err := b.browse(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	err = chromedp.Do(tab, chromedp.Navigate(firstURL(string(link))), chromedp.WaitVisible(chromedp.CSS(`nav a[href="#gpus"]`)),
		chromedp.Click(chromedp.CSS(`nav a[href="#gpus"]`)), chromedp.WaitVisible(chromedp.CSS(".plot canvas")))
	if err != nil {
		return nil, fmt.Errorf("open the page of the GPUs: %w", err)
	}
	measured, err := chromedp.Run(tab, chromedp.Evaluate[[]float64](timelineScript, chromedp.EvalAwaitPromise))
	if err != nil || len(measured) != 3 {
		return nil, fmt.Errorf("measure the timeline: %v, %w", measured, err)
	}
	return values{"week_ms": measured[0], "frame_ms": measured[1], "worst_ms": measured[2]}, nil
}

// timelineScript shows a week, then moves it for 60 frames. It returns the time until the week is drawn, the mean and the longest frame.
const timelineScript = `(async () => {
	const frame = () => new Promise(requestAnimationFrame);
	const began = performance.now();
	[...document.querySelectorAll(".timeline .choices button")].find((b) => b.textContent === "Week").click();
	await frame();
	await frame();
	while (document.querySelector(".timeline .state").textContent !== "") await frame();
	await frame();
	const took = [performance.now() - began];
	await new Promise((done) => setTimeout(done, 500));
	const canvas = document.querySelector(".plot canvas"), box = canvas.getBoundingClientRect();
	let last = performance.now(), sum = 0, worst = 0;
	for (let n = 0; n < 60; n++) {
		canvas.dispatchEvent(new WheelEvent("wheel", { deltaY: -5, shiftKey: true, clientX: box.left + box.width / 2, clientY: box.top + 40, bubbles: true, cancelable: true }));
		await frame();
		const now = performance.now();
		[sum, worst, last] = [sum + now - last, Math.max(worst, now - last), now];
	}
	return [...took, sum / 60, worst];
})()`

// firstURL returns the first word of a text that is a URL.
func firstURL(text string) string {
	for word := range strings.FieldsSeq(text) {
		if strings.HasPrefix(word, "http") {
			return word
		}
	}
	return ""
}

// seedWeek inserts ended leases of the last seven days, one after the other on each of eight slots.
func seedWeek(ctx context.Context, path string) error {
	db, err := sql.Open("sqlite3", "file:"+path+"?_busy_timeout=30000")
	if err != nil {
		return err
	}
	defer db.Close()
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	insert, err := tx.PrepareContext(ctx, `INSERT INTO leases (id, space, identity, size, declared_ms, held_ms, state, slot, device, admitted_at, granted_at, active_at, ended_at, charged_ms, reason)
		VALUES (?, ?, ?, 'large', ?, ?, ?, ?, 'GPU-bench', ?, ?, ?, ?, ?, ?)`)
	if err != nil {
		return err
	}
	const slots = 8
	week := (7 * 24 * time.Hour).Milliseconds()
	begin, gap := time.Now().UnixMilli()-week, week*slots/weekOfLeases
	for n := range int64(weekOfLeases) {
		at, used := begin+n/slots*gap, 1+rand.Int64N(gap*8/10)
		declared, status, reason := used+rand.Int64N(gap), "released", "released"
		if n%50 == 0 {
			declared, status, reason = used, "expired", "deadline"
		}
		if _, err := insert.ExecContext(ctx, fmt.Sprintf("%032x", n), fmt.Sprintf("space-%d", n%20), fmt.Sprintf("user:u%d", n%50), declared, declared, status, n%slots, at, at, at, at+used, used, reason); err != nil {
			return err
		}
	}
	return tx.Commit()
}
