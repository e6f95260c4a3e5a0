package spacelog

import (
	"slices"
	"strings"

	"spacehost/internal/lazyregexp"
)

// Query selects the lines of a Page. Of Before and After at most one is set.
type Query struct {
	Before string   // older lines than this position
	After  string   // newer lines than this position
	Limit  int      // lines at most
	Stream []string // only these streams; empty: all
	Level  string   // only lines of this level: error or warning; "": all
	Text   string   // only lines that contain it, in upper or lower case
}

// Page is a part of a log, the oldest line first.
type Page struct {
	Lines []PageLine `json:"lines"`
	// Before is the position of older lines; "": there are none. After is the position of further lines.
	Before string `json:"before,omitempty"`
	After  string `json:"after"`
	// Gap means that the lines at the position of the request were removed by rotations.
	Gap bool `json:"gap,omitempty"`
	// More means that After leaves out lines that exist already.
	More bool `json:"more,omitempty"`
}

// PageLine is a Line with its level.
type PageLine struct {
	Line
	Level string `json:"level,omitempty"` // error or warning, as its text suggests; "": neither
}

// maxScanned bounds the bytes that one Page reads: a search for a rare text continues with the next request.
const maxScanned = 32 << 20

// ReadPage returns a part of a log. Errors: *NotFoundError, *PlaceError, or that of a file.
func ReadPage(state, space string, kind Kind, q Query) (Page, error) {
	var from place
	var err error
	if at := q.Before + q.After; at != "" {
		if from, err = parsePlace(at); err != nil {
			return Page{}, err
		}
	}
	l, err := openLog(state, space, kind)
	if err != nil {
		return Page{}, err
	}
	defer l.close()
	page := Page{Lines: []PageLine{}}
	if q.After != "" {
		err = l.pageAfter(&page, from, q)
	} else {
		err = l.pageBefore(&page, from, q)
	}
	return page, err
}

func (l *openedLog) pageAfter(page *Page, from place, q Query) error {
	var scanned int64
	found, gone := l.find(from)
	page.Gap = gone
	to, err := l.forward(found, func(line Line, _ place) bool {
		scanned += int64(len(line.Text))
		if q.wants(&line) {
			page.add(line)
		}
		page.More = len(page.Lines) >= q.Limit || scanned >= maxScanned
		return !page.More
	})
	page.After = to.String()
	return err
}

func (l *openedLog) pageBefore(page *Page, from place, q Query) error {
	if q.Before == "" {
		from = l.end()
	}
	var scanned int64
	found, gone := l.find(from)
	page.Gap, page.After = gone, found.String()
	if gone { // the oldest lines are behind it
		return nil
	}
	stopped := false
	at, err := l.backward(found, func(line Line, _ place) bool {
		scanned += int64(len(line.Text))
		if q.wants(&line) {
			page.add(line)
		}
		stopped = len(page.Lines) >= q.Limit || scanned >= maxScanned
		return !stopped
	})
	slices.Reverse(page.Lines)
	if stopped {
		page.Before = at.String()
	}
	return err
}

func (p *Page) add(line Line) { p.Lines = append(p.Lines, PageLine{line, levelOf(line)}) }

func (q Query) wants(line *Line) bool {
	return (len(q.Stream) == 0 || slices.Contains(q.Stream, line.Stream)) &&
		(q.Text == "" || strings.Contains(strings.ToLower(line.Text), strings.ToLower(q.Text))) &&
		(q.Level == "" || levelOf(*line) == q.Level)
}

// The levels of lines.
const (
	LevelError   = "error"
	LevelWarning = "warning"
)

// A Space prints text, not levels. These are the words of Python's logging, warnings and tracebacks, and of this host.
var (
	errorWords   = lazyregexp.New(`^Traceback \(|\b(ERROR|CRITICAL|FATAL)\b|^(\w+\.)*\w*(Error|Exception)\b|_ERROR\b`)
	warningWords = lazyregexp.New(`\b(WARNING|WARN)\b|\w*Warning: |\bwarning: `)
)

func levelOf(l Line) string {
	switch {
	case errorWords.MatchString(l.Text):
		return LevelError
	case warningWords.MatchString(l.Text):
		return LevelWarning
	}
	return ""
}
