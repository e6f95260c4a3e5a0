package main

import (
	"bytes"
	"cmp"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/chromedp/chromedp"

	"spacehost/internal/dashboard"
)

// folder contains the pictures of the documentation.
const folder = "../../../docs/screenshots"

// pictured returns the stories that have a picture, by the name of the picture without its theme.
func pictured() map[string]story {
	all := map[string]story{}
	for _, of := range stories() {
		switch {
		case of.role == dashboard.Admin && of.state == filled && of.at == "":
			all[of.page] = of
		case of.role == dashboard.Admin && of.state == filled:
			all[of.page+"-detail"] = of
		}
	}
	return all
}

var themes = []string{"light", "dark"}

// TestEachPageHasPictures compares the folder with the pages.
func TestEachPageHasPictures(t *testing.T) {
	want := map[string]bool{}
	for name := range pictured() {
		for _, theme := range themes {
			want[name+"-"+theme+".png"] = true
		}
	}
	files, err := filepath.Glob(filepath.Join(folder, "*.png"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if !want[filepath.Base(file)] {
			t.Errorf("%s belongs to no page; remove it", file)
		}
		delete(want, filepath.Base(file))
	}
	if len(want) > 0 {
		t.Errorf("no picture %v; run `make screenshots`", slices.Sorted(maps.Keys(want)))
	}
}

// TestScreenshots writes the pictures. It runs with SPACEHOST_SCREENSHOTS=1 only (make screenshots): fonts differ between machines.
func TestScreenshots(t *testing.T) {
	if os.Getenv("SPACEHOST_SCREENSHOTS") == "" {
		t.Skip("pictures are written by `make screenshots`")
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	s := openStudio(t)
	for name, of := range pictured() {
		for _, theme := range themes {
			s.setDark(t, theme == "dark")
			s.do(t, chromedp.EmulateViewport(1200, 800))
			s.do(t, chromedp.Navigate("about:blank")) // otherwise the second theme is no new load, and its canvas stays
			s.open(t, of)
			if _, err := chromedp.Run(s.ctx, chromedp.PollFunction[bool](drawn, chromedp.WithPollingTimeout(patience))); err != nil {
				t.Fatalf("%s is not drawn: %v", name, err)
			}
			s.do(t, chromedp.EmulateViewport(1200, int64(min(cmp.Or(heights[name], 800), evaluate[int](t, s, contentHeight)))))
			s.awaitFrames(t)
			picture, err := chromedp.Run(s.ctx, chromedp.CaptureScreenshot())
			if err != nil {
				t.Fatal(err)
			}
			small, err := reduced(picture)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(folder, name+"-"+theme+".png"), small, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// heights are the heights of pictures, if not 800: that of the GPUs has the timeline. A page that is lower has a lower picture.
var heights = map[string]int{"gpus": 1300, "line": 1100, "people-detail": 1400, "settings": 1200, "spaces-detail": 1300, "usage": 1000}

const contentHeight = `Math.ceil(document.querySelector("main").getBoundingClientRect().bottom + scrollY)`

// drawn is a condition of JavaScript: each chart has its canvas, and no request was made for longer than a page waits between two. A page
// that follows a log makes one after the other.
const drawn = `() => (requests.pending === 0 && performance.now() - requests.last > 1500 || performance.now() > 6000)
	&& [...document.querySelectorAll(".chart")].every((chart) => chart.querySelector("canvas"))`

// reduced returns a PNG with the 256 most frequent colours of another one. The pages have few colours; the others are the edges of
// letters. A picture with gradients keeps all of them.
func reduced(picture []byte) ([]byte, error) {
	full, err := png.Decode(bytes.NewReader(picture))
	if err != nil {
		return nil, err
	}
	counts := map[color.RGBA]int{}
	for y := range full.Bounds().Dy() {
		for x := range full.Bounds().Dx() {
			counts[color.RGBAModel.Convert(full.At(x, y)).(color.RGBA)]++
		}
	}
	order := slices.SortedFunc(maps.Keys(counts), func(a, b color.RGBA) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a.R, b.R), cmp.Compare(a.G, b.G), cmp.Compare(a.B, b.B))
	})
	palette, covered := color.Palette{}, 0
	for _, c := range order[:min(256, len(order))] {
		palette = append(palette, c)
		covered += counts[c]
	}
	chosen := full
	if size := full.Bounds().Dx() * full.Bounds().Dy(); covered*100 >= size*98 {
		small := image.NewPaletted(full.Bounds(), palette)
		draw.Draw(small, small.Bounds(), full, image.Point{}, draw.Src)
		chosen = small
	}
	var out bytes.Buffer
	err = (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&out, chosen)
	return out.Bytes(), err
}
