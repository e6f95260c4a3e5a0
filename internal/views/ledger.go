package views

import (
	"context"
	"encoding/csv"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"spacehost/quota"
)

// Entry is one line of the ledger.
type Entry struct {
	ID              int64     `json:"id"`
	At              time.Time `json:"at"`
	Identity        string    `json:"identity"`
	Lease           string    `json:"lease,omitempty"`
	Kind            string    `json:"kind"`
	Space           string    `json:"space,omitempty"`
	Function        string    `json:"function,omitempty"`
	Via             string    `json:"via,omitempty"` // the Space that called Space on the payer's behalf
	Factor          int       `json:"factor"`        // quota seconds per second of the lease
	DeclaredSeconds float64   `json:"declaredSeconds"`
	UsedSeconds     float64   `json:"usedSeconds"`
	HeldSeconds     float64   `json:"heldSeconds"`
	ChargedSeconds  float64   `json:"chargedSeconds"`
	ReturnedSeconds float64   `json:"returnedSeconds"`
	Runs            int       `json:"runs,omitempty"` // counted by a settlement, granted or returned

	CreditHeldSeconds    float64 `json:"creditHeldSeconds,omitempty"`    // the part of HeldSeconds that comes from the credits
	CreditChargedSeconds float64 `json:"creditChargedSeconds,omitempty"` // the part of ChargedSeconds that the credits pay

	Reason string `json:"reason,omitempty"`
	By     string `json:"by,omitempty"`
}

func entryView(e quota.Entry) Entry {
	return Entry{
		ID: e.ID, At: e.At.UTC(), Identity: e.Identity, Lease: Short(e.Lease), Kind: string(e.Kind), Space: e.Space, Function: e.Task, Via: e.Via,
		Factor: e.Factor, DeclaredSeconds: e.Declared().Seconds(), UsedSeconds: e.Used().Seconds(),
		HeldSeconds: e.Held.Seconds(), ChargedSeconds: e.Charged.Seconds(), ReturnedSeconds: e.Returned.Seconds(), Reason: e.Reason, By: e.By,
		Runs: e.Runs, CreditHeldSeconds: e.CreditHeld.Seconds(), CreditChargedSeconds: e.CreditCharged.Seconds(),
	}
}

// Ledger returns the lines of an account that match the query, newest first. If there are as many as the limit, the ID of the last
// one as Query.Before asks for the next. Errors: *RequestError, or of the database.
func (a *Accounts) Ledger(ctx context.Context, of Subject, q Query) ([]Entry, error) {
	limit, err := Limit(q.Limit, 50)
	if err != nil {
		return nil, err
	}
	filter, err := q.filter(of)
	if err != nil {
		return nil, err
	}
	entries, err := a.config.Ledger.Matching(ctx, of.Key(), filter, limit)
	return Each(entries, entryView), err
}

// filter reads the Query of the ledger of a subject. Errors: *RequestError.
func (q Query) filter(of Subject) (quota.EntryFilter, error) {
	f := quota.EntryFilter{Spaces: of.Limit, Space: q.Space, Task: q.Function, Kind: quota.Kind(q.Kind)}
	if f.Kind != "" && !slices.Contains(quota.Kinds, f.Kind) {
		return f, BadRequest("unknown kind=%.40q; give hold, settle, grant, reset or credit", q.Kind)
	}
	var err error
	if f.From, f.To, err = q.times(); err != nil {
		return f, err
	}
	if q.Before != "" {
		if f.Before, err = strconv.ParseInt(q.Before, 10, 64); err != nil || f.Before < 1 {
			return f, BadRequest("before=%.40q is not the ID of a line; give the id of the last line that was read", q.Before)
		}
	}
	return f, nil
}

// times reads From and To, each zero without one. Errors: *RequestError.
func (q Query) times() (from, to time.Time, err error) {
	for _, end := range []struct {
		name, text string
		at         *time.Time
	}{{"from", q.From, &from}, {"to", q.To, &to}} {
		if end.text == "" {
			continue
		}
		if *end.at, err = Time(end.name, end.text); err != nil {
			return from, to, err
		}
	}
	if !from.IsZero() && !to.IsZero() && !from.Before(to) {
		return from, to, BadRequest("from=%.40s is not before to=%.40s; exchange them", q.From, q.To)
	}
	return from, to, nil
}

// ledgerColumns are the columns of a ledger as CSV.
var ledgerColumns = []struct {
	name string
	cell func(Entry) string
}{
	{"id", func(e Entry) string { return strconv.FormatInt(e.ID, 10) }},
	{"at", func(e Entry) string { return e.At.Format("2006-01-02T15:04:05.000Z07:00") }},
	{"kind", func(e Entry) string { return e.Kind }},
	{"lease", func(e Entry) string { return e.Lease }},
	{"space", func(e Entry) string { return CSVText(e.Space) }},
	{"function", func(e Entry) string { return CSVText(e.Function) }},
	{"via", func(e Entry) string { return CSVText(e.Via) }},
	{"declaredSeconds", func(e Entry) string { return CSVSeconds(e.DeclaredSeconds) }},
	{"usedSeconds", func(e Entry) string { return CSVSeconds(e.UsedSeconds) }},
	{"heldSeconds", func(e Entry) string { return CSVSeconds(e.HeldSeconds) }},
	{"chargedSeconds", func(e Entry) string { return CSVSeconds(e.ChargedSeconds) }},
	{"returnedSeconds", func(e Entry) string { return CSVSeconds(e.ReturnedSeconds) }},
	{"creditChargedSeconds", func(e Entry) string { return CSVSeconds(e.CreditChargedSeconds) }},
	{"runs", func(e Entry) string { return strconv.Itoa(e.Runs) }},
	{"reason", func(e Entry) string { return CSVText(e.Reason) }},
	{"by", func(e Entry) string { return CSVText(e.By) }},
}

// LedgerCSV finds all lines of an account that match the query, whatever its limit. write sends them as CSV, newest first; it
// reads a page at a time. Errors: *RequestError before anything is written; those of write are of the database or of the writer.
func (a *Accounts) LedgerCSV(ctx context.Context, of Subject, q Query) (write func(io.Writer) error, err error) {
	filter, err := q.filter(of)
	if err != nil {
		return nil, err
	}
	next := func() ([]quota.Entry, error) {
		entries, err := a.config.Ledger.Matching(ctx, of.Key(), filter, csvPage)
		if len(entries) > 0 {
			filter.Before = entries[len(entries)-1].ID
		}
		return entries, err
	}
	return func(to io.Writer) error { return writeLedgerCSV(to, next) }, nil
}

// csvPage is the number of lines that are read at a time.
const csvPage = 1_000

func writeLedgerCSV(to io.Writer, next func() ([]quota.Entry, error)) error {
	w := csv.NewWriter(to)
	var heading []string
	for _, column := range ledgerColumns {
		heading = append(heading, column.name)
	}
	if err := w.Write(heading); err != nil {
		return err
	}
	for {
		entries, err := next()
		if err != nil {
			return err
		}
		for _, e := range entries {
			line, view := make([]string, 0, len(ledgerColumns)), entryView(e)
			for _, column := range ledgerColumns {
				line = append(line, column.cell(view))
			}
			if err := w.Write(line); err != nil {
				return err
			}
		}
		w.Flush()
		if w.Error() != nil || len(entries) < csvPage {
			return w.Error()
		}
	}
}

// CSVText returns a text as a cell of CSV. A leading =, +, -, @, tab or carriage return would begin a formula in a spreadsheet.
func CSVText(text string) string {
	if text != "" && strings.ContainsRune("=+-@\t\r", rune(text[0])) {
		return "'" + text
	}
	return text
}

// CSVSeconds returns seconds as a cell of CSV, exact to the microsecond, without an exponent and without zeros at the end.
func CSVSeconds(s float64) string {
	return strings.TrimRight(strings.TrimRight(strconv.FormatFloat(s, 'f', 6, 64), "0"), ".")
}
