package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"time"

	"github.com/chromedp/chromedp"
)

// chromium returns the browser's path, "" if there is none.
func chromium() string {
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

// page measures the time from the first request until the app's button is visible, in a browser with an empty
// profile.
func page(ctx context.Context, b *bench, s *target) (values, error) {
	if b.chromium == "" {
		return values{}, nil // reported once, at the start
	}
	tab, end, err := b.browse(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	began := time.Now()
	if err := chromedp.Do(tab, chromedp.Navigate(s.url), chromedp.WaitVisible(chromedp.CSS("#go"))); err != nil {
		return nil, fmt.Errorf("open the page: %w", err)
	}
	return values{"ms": ms(time.Since(began))}, nil
}

// browse starts a browser with an empty profile, for requestTimeout at most. end ends it.
func (b *bench) browse(ctx context.Context) (tab context.Context, end func(), err error) {
	profile, err := os.MkdirTemp(b.scratch, "chromium-")
	if err != nil {
		return nil, nil, err
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(b.chromium), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.NoFirstRun,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true),
		chromedp.UserDataDir(profile), chromedp.WindowSize(1200, 900))
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	allocator, endBrowser := chromedp.NewExecAllocator(ctx, options...)
	tab, closeTab := chromedp.NewContext(allocator)
	end = func() {
		closeTab()
		endBrowser()
		cancel()
		_ = os.RemoveAll(profile) // what stays is removed with the scratch folder
	}
	if err := chromedp.Do(tab, chromedp.Navigate("about:blank")); err != nil { // excludes the start of the browser
		end()
		return nil, nil, fmt.Errorf("start %s: %w", b.chromium, err)
	}
	return tab, end, nil
}
