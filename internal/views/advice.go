package views

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"spacehost/quota"
)

// Advice compares what the calls of a function declared with what they used (quota.Usage), and names a better declaration.
type Advice struct {
	Space           string  `json:"space"`
	Function        string  `json:"function"`
	Size            string  `json:"size"`
	Calls           int     `json:"calls"`
	Overstayed      int     `json:"overstayed"`      // calls that were ended at their deadline
	DeclaredSeconds float64 `json:"declaredSeconds"` // by the function
	HeldSeconds     float64 `json:"heldSeconds"`     // that the spaces package requested for it, without the factor of the size
	LongestSeconds  float64 `json:"longestSeconds"`  // used by one call at most
	MeanSeconds     float64 `json:"meanSeconds"`
	MedianSeconds   float64 `json:"medianSeconds,omitempty"` // half of the calls used at most this; this and the next two only in the answer of Accounts.Advice
	MostSeconds     float64 `json:"mostSeconds,omitempty"`   // 98 % of the calls used at most this
	// Tight is a duration in seconds that 98 % of the calls would have fitted into, if that is much less than Declare; absent: it is
	// not, or there are too few calls. The others would have been ended.
	Tight *float64 `json:"tightSeconds,omitempty"`
	// Declare is the advised duration in seconds; null: the declaration is fine, or there are too few calls.
	Declare *float64 `json:"declareSeconds"`
	// Now and Then are the calls that fit into a day of tier free, as declared and as advised. Null without an advice.
	Now  *Day `json:"day"`
	Then *Day `json:"dayAsAdvised"`
	// Simulated means that the seconds are those of this machine's CPU.
	Simulated bool   `json:"simulated"`
	Text      string `json:"text"` // all of it in sentences
}

// Day is how many calls fit into the quota of a day.
type Day struct {
	Together int `json:"together"` // at the same time: each holds its declared seconds
	InTurn   int `json:"inTurn"`   // one after another: each is charged what it used; from quota.MostInTurn on, more may fit
}

// InTurn writes a number of calls one after another, as callsInTurn of the pages' words.js does.
func InTurn(n int) string {
	if n >= quota.MostInTurn {
		return fmt.Sprintf("%d or more", quota.MostInTurn)
	}
	return strconv.Itoa(n)
}

// Advisor turns the ledger into Advice. It may be used concurrently.
type Advisor struct {
	Ledger    *quota.Ledger
	Free      quota.Tier // of the Day
	Simulated bool       // the GPUs are simulated
	Factor    float64    // seconds that the spaces package requests for one that a function declares; 0: 1
}

// Advices returns the Advice about each function that has calls of a query. Errors: of the database.
func (a Advisor) Advices(ctx context.Context, q quota.UsageQuery) ([]Advice, error) {
	usages, err := a.Ledger.Usages(ctx, q)
	return Each(usages, a.advice), err
}

func (a Advisor) advice(u quota.Usage) Advice {
	view := Advice{
		Space: u.Space, Function: u.Task, Size: sizeOf(u.Factor), Calls: u.Calls, Overstayed: u.Overstayed, Simulated: a.Simulated,
		DeclaredSeconds: u.Declared.Seconds() / a.factor(), HeldSeconds: u.Declared.Seconds(), LongestSeconds: u.Longest.Seconds(), MeanSeconds: u.Mean.Seconds(),
		MedianSeconds: u.Median.Seconds(), MostSeconds: u.Most.Seconds(),
	}
	if tight, ok := u.Tight(a.factor()); ok {
		view.Tight = new(tight.Seconds())
	}
	if declare, ok := u.Advice(a.factor()); ok {
		seconds := declare.Seconds()
		view.Declare = &seconds
		if u.Overstayed == 0 {
			view.Now, view.Then = a.day(u.Declared, u), a.day(time.Duration(float64(declare)*a.factor()), u)
		}
	}
	view.Text = view.sentences(a.Free)
	return view
}

func (a Advisor) factor() float64 { return cmp.Or(a.Factor, 1) }

// day returns the calls of a day if each holds that duration, nil without a limit.
func (a Advisor) day(held time.Duration, u quota.Usage) *Day {
	factor := time.Duration(u.Factor)
	together, inTurn, ok := a.Free.Day(held*factor, u.Mean*factor)
	if !ok {
		return nil
	}
	return &Day{together, inTurn}
}

func sizeOf(factor int) string {
	if factor == quota.Factor("xlarge") {
		return "xlarge"
	}
	return "large"
}

// sentences is the only place of these words: `quota`, `explain` and the end of `run` print them.
func (v Advice) sentences(free quota.Tier) string {
	text := fmt.Sprintf("%s: %s, declared %g s", v.Function, plural(v.Calls, "call"), v.DeclaredSeconds)
	if v.HeldSeconds != v.DeclaredSeconds {
		text += fmt.Sprintf(" (holds %g s on this hardware)", v.HeldSeconds)
	}
	text += fmt.Sprintf(", used %.1f s at most", v.LongestSeconds)
	switch {
	case v.Declare == nil:
	case v.Overstayed > 0:
		text += fmt.Sprintf("; %s ended at the deadline: declare %g", plural(v.Overstayed, "call"), *v.Declare)
	case v.Now == nil || v.Then == nil || *v.Now == *v.Then:
		text += fmt.Sprintf("; declare %g: less is held while a call runs", *v.Declare)
	default:
		text += fmt.Sprintf("; declare %g: the day of a free visitor (%s) has room for %s", *v.Declare, limitsOf(free), v.Then.insteadOf(*v.Now))
	}
	if v.Simulated && v.Declare != nil {
		text += ". These are seconds of this machine's CPU; a GPU needs others, so measure there before you declare less"
	}
	return text
}

func limitsOf(t quota.Tier) string {
	text := fmt.Sprintf("%g s", t.Quota.Seconds())
	if t.Runs > 0 {
		text += fmt.Sprintf(", %d runs", t.Runs)
	}
	return text
}

func (d Day) insteadOf(before Day) string {
	var parts []string
	if d.Together != before.Together {
		parts = append(parts, fmt.Sprintf("%d calls at a time instead of %d", d.Together, before.Together))
	}
	if d.InTurn != before.InTurn {
		parts = append(parts, fmt.Sprintf("%s one after another instead of %s", InTurn(d.InTurn), InTurn(before.InTurn)))
	}
	return strings.Join(parts, ", and ")
}

func plural(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}
