package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// browserLife bounds the use of a browser by one test. Each step has a deadline of its own; this ends one that hangs.
const browserLife = 10 * time.Minute

// browser opens a headless Chromium and collects the uncaught exceptions of its pages.
func browser(t *testing.T, flags ...chromedp.ExecAllocatorOption) (ctx context.Context, exceptions func() []string) {
	t.Helper()
	path := requireProgram(t, "Chromium", "chromium", "chromium-browser", "google-chrome", "chrome")
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.NoFirstRun,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true),
		chromedp.UserDataDir(t.TempDir()), chromedp.WindowSize(1200, 900))
	options = append(options, flags...)
	allocator, end := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(end)
	tab, closeTab := chromedp.NewContext(allocator)
	t.Cleanup(closeTab)
	ctx, cancel := context.WithTimeout(tab, browserLife)
	t.Cleanup(cancel)
	var mu sync.Mutex
	var messages []string
	err := chromedp.Listen(ctx, func(event any) {
		if thrown, ok := event.(*runtime.EventExceptionThrown); ok {
			mu.Lock()
			defer mu.Unlock()
			text := fmt.Sprintf("%+v", thrown.ExceptionDetails)
			if thrown.ExceptionDetails.Exception != nil {
				text += " " + thrown.ExceptionDetails.Exception.Description
			}
			messages = append(messages, text)
		}
	})
	if err != nil {
		t.Fatalf("start %s: %v", path, err)
	}
	return ctx, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return messages
	}
}

// TestBrowserShowsPageAndCallReturns opens Gradio's own frontend at the host's address and makes a call from it.
func TestBrowserShowsPageAndCallReturns(t *testing.T) {
	eachSample(t, browserShowsPageAndCallReturns)
}

func browserShowsPageAndCallReturns(t *testing.T, p *product) {
	ctx, exceptions := browser(t)
	greeting, err := greet(ctx, p.URL, "browser")
	screenshot(t, ctx, "page-"+p.line+".png")
	if err != nil {
		t.Fatalf("%v; uncaught exceptions: %q", err, exceptions())
	}
	title, err := chromedp.Run(ctx, chromedp.Title())
	if err != nil {
		t.Fatal(err)
	}
	if title != "Hello ZeroGPU" || !strings.HasPrefix(greeting, "Hello browser, from GPU-") {
		t.Errorf("title %q, greeting %q", title, greeting)
	}
	if messages := exceptions(); len(messages) > 0 {
		t.Errorf("uncaught exceptions of the page: %q", messages)
	}
}

const (
	greetButton   = chromedp.CSS("#greet")
	greetingField = chromedp.CSS("#greeting textarea, #greeting input")
)

// greet types a name, clicks, and returns what the page shows.
func greet(ctx context.Context, url, name string) (string, error) {
	if err := chromedp.Do(ctx, chromedp.Navigate(url), chromedp.WaitVisible(greetButton)); err != nil {
		return "", err
	}
	// The name replaces the present text. Gradio re-renders the field, so a node found earlier may be gone.
	_, err := chromedp.Run(ctx, chromedp.Evaluate[bool](
		`(() => { const field = document.querySelector("#name textarea, #name input"); field.focus(); field.select(); return true })()`))
	if err != nil {
		return "", err
	}
	if err := chromedp.Do(ctx, chromedp.KeyEvent(name), chromedp.Click(greetButton)); err != nil {
		return "", err
	}
	_, err = chromedp.Run(ctx, chromedp.PollFunction[bool](
		`() => document.querySelector("#greeting textarea, #greeting input").value.startsWith("Hello")`,
		chromedp.WithPollingTimeout(30*time.Second)))
	if err != nil {
		return "", err
	}
	return chromedp.Run(ctx, chromedp.Value(greetingField))
}

// screenshot writes a picture into the folder $SPACEHOST_TEST_SCREENSHOTS, if set, for a manual check.
func screenshot(t *testing.T, ctx context.Context, name string) {
	t.Helper()
	dir := os.Getenv("SPACEHOST_TEST_SCREENSHOTS")
	if dir == "" {
		return
	}
	picture, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	if err != nil {
		t.Errorf("screenshot: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), picture, 0o644); err != nil {
		t.Error(err)
	}
}
