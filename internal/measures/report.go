package measures

import (
	"fmt"
	"io"
	"slices"
	"sort"
	"strings"
	"text/tabwriter"
)

// Percentile returns the smallest length that at least p percent of the functions do not exceed.
func (r *Report) Percentile(p int) int {
	if len(r.Funcs) == 0 {
		return 0
	}
	lengths := make([]int, 0, len(r.Funcs))
	for _, f := range r.Funcs {
		lengths = append(lengths, f.Lines)
	}
	slices.Sort(lengths)
	return lengths[max((len(lengths)*p+99)/100, 1)-1]
}

// LongFuncs returns the functions of more than limit lines, the longest first.
func (r *Report) LongFuncs(limit int) (long []Func) {
	for _, f := range r.Funcs {
		if f.Lines > limit {
			long = append(long, f)
		}
	}
	sort.SliceStable(long, func(a, b int) bool { return long[a].Lines > long[b].Lines })
	return long
}

// LongFiles returns the files of more than limit lines, the longest first.
func (r *Report) LongFiles(limit int) (long []File) {
	for _, f := range r.Files {
		if f.Lines > limit {
			long = append(long, f)
		}
	}
	sort.SliceStable(long, func(a, b int) bool { return long[a].Lines > long[b].Lines })
	return long
}

// Group returns the sum of a group, of one directory or, with "", of all.
func (r *Report) Group(group, dir string) (sum Count) {
	for place, count := range r.Counts {
		if (dir == "" || dir == place.Dir) && slices.Contains(kinds[group], place.Kind) {
			sum = sum.plus(count)
		}
	}
	return sum
}

// Problems lists the limits that the tree exceeds.
func (r *Report) Problems() (problems []string) {
	problem := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	if got := r.Percentile(90); got > LimitP90 {
		problem("function length: the 90th percentile is %d lines, over %d; split long functions", got, LimitP90)
	}
	if got := r.Percentile(99); got > LimitP99 {
		problem("function length: the 99th percentile is %d lines, over %d; split long functions", got, LimitP99)
	}
	for _, f := range r.LongFiles(LimitFile) {
		problem("%s has %d lines, over %d; split the file", f.Path, f.Lines, LimitFile)
	}
	for _, group := range Groups {
		if c := r.Group(group, ""); c.Rate() > LimitRate {
			problem("%s: %d pronouns in %d words, %.1f per 1,000, over %.1f; list them with go run ./internal/measures/measure -words",
				group, c.Limited, c.Words, c.Rate(), LimitRate)
		}
	}
	return problems
}

// Print writes the figures as tables.
func (r *Report) Print(w io.Writer) error {
	fmt.Fprintf(w, "Functions outside of tests: %d; lines: median %d, p90 %d (limit %d), p99 %d (limit %d), max %d\n",
		len(r.Funcs), r.Percentile(50), r.Percentile(90), LimitP90, r.Percentile(99), LimitP99, r.Percentile(100))
	long := r.LongFuncs(LimitP99)
	fmt.Fprintf(w, "Functions over %d lines: %d\n", LimitP99, len(long))
	for _, f := range long {
		fmt.Fprintf(w, "%6d  %s:%d %s\n", f.Lines, f.Path, f.Line, f.Name)
	}
	files := r.LongFiles(LimitFile)
	fmt.Fprintf(w, "\nFiles: %d; files over %d lines: %d\n", len(r.Files), LimitFile, len(files))
	for _, f := range files {
		fmt.Fprintf(w, "%6d  %s\n", f.Lines, f.Path)
	}
	fmt.Fprintf(w, "\nPronouns per 1,000 words (limit %.1f in a group); \"reported\" is outside of the limit\n", LimitRate)
	for _, rows := range []func(io.Writer){r.printKinds, r.printDirs} {
		table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
		rows(table)
		if err := table.Flush(); err != nil {
			return err
		}
		fmt.Fprintln(w)
	}
	r.printResult(w)
	return nil
}

// printKinds writes one row for each kind of text, below the row of its group.
func (r *Report) printKinds(w io.Writer) {
	fmt.Fprintln(w, "kind of text\twords\tpronouns\trate\treported\t")
	row := func(name string, c Count) {
		fmt.Fprintf(w, "%s\t%d\t%d\t%.1f\t%d\t\n", name, c.Words, c.Limited, c.Rate(), c.Reported)
	}
	for _, group := range Groups {
		row(strings.ToUpper(group), r.Group(group, ""))
		for _, kind := range kinds[group] {
			var sum Count
			for place, count := range r.Counts {
				if place.Kind == kind {
					sum = sum.plus(count)
				}
			}
			row(string(kind), sum)
		}
	}
}

// printResult writes the problems, or that there are none.
func (r *Report) printResult(w io.Writer) {
	problems := r.Problems()
	fmt.Fprintf(w, "Problems: %d\n", len(problems))
	for _, problem := range problems {
		fmt.Fprintln(w, " ", problem)
	}
}

// printDirs writes one row for each directory with a pronoun: pronouns and rate of each group.
func (r *Report) printDirs(w io.Writer) {
	var dirs []string
	for place, count := range r.Counts {
		if count.Limited+count.Reported > 0 {
			dirs = append(dirs, place.Dir)
		}
	}
	slices.Sort(dirs)
	fmt.Fprintln(w, "directory\tstrings\trate\tcomments\trate\tdocs\trate\treported\t")
	for _, dir := range slices.Compact(dirs) {
		fmt.Fprint(w, dir)
		reported := 0
		for _, group := range Groups {
			c := r.Group(group, dir)
			reported += c.Reported
			fmt.Fprintf(w, "\t%d\t%.1f", c.Limited, c.Rate())
		}
		fmt.Fprintf(w, "\t%d\t\n", reported)
	}
}

// longest is the number of bytes of a line that PrintWords writes.
const longest = 160

// PrintWords writes each pronoun as file:line: text. Pronouns outside of the limit are marked "reported".
func (r *Report) PrintWords(w io.Writer) {
	for _, h := range r.Hits {
		text := h.Text
		if i := strings.Index(strings.ToLower(text), h.Word); len(text) > longest {
			from := max(min(i-longest/2, len(text)-longest), 0)
			text = strings.ToValidUTF8(text[from:from+longest], "")
		}
		label := string(h.Kind)
		if !h.Limited {
			label += ", reported"
		}
		fmt.Fprintf(w, "%s:%d: %s [%s: %s]\n", h.Path, h.Line, text, label, h.Word)
	}
}
