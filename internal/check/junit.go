package check

import (
	"encoding/xml"
	"fmt"
	"io"
)

// The JUnit XML that GitLab, Jenkins and others read. Each file with findings is a suite, each finding a test that failed.
// Info lines are tests that passed, with the text as their output.
type (
	junitSuites struct {
		XMLName  xml.Name     `xml:"testsuites"`
		Name     string       `xml:"name,attr"`
		Tests    int          `xml:"tests,attr"`
		Failures int          `xml:"failures,attr"`
		Time     string       `xml:"time,attr"`
		Suites   []junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		Name     string      `xml:"name,attr"`
		Tests    int         `xml:"tests,attr"`
		Failures int         `xml:"failures,attr"`
		Cases    []junitCase `xml:"testcase"`
	}
	junitCase struct {
		Name    string        `xml:"name,attr"`
		Class   string        `xml:"classname,attr"`
		File    string        `xml:"file,attr,omitempty"`
		Line    int           `xml:"line,attr,omitempty"`
		Failure *junitFailure `xml:"failure,omitempty"`
		Out     string        `xml:"system-out,omitempty"`
	}
	junitFailure struct {
		Type    string `xml:"type,attr"`
		Message string `xml:"message,attr"`
		Text    string `xml:",chardata"`
	}
)

// writeJUnit writes one passed test if there are no findings, because some readers refuse an empty file.
func (r *Report) writeJUnit(w io.Writer, v View) error {
	all := junitSuites{Name: "spacehost check", Time: fmt.Sprintf("%.3f", v.Took.Seconds())}
	for _, f := range r.Findings {
		name := v.file(f)
		if n := len(all.Suites); n == 0 || all.Suites[n-1].Name != name {
			all.Suites = append(all.Suites, junitSuite{Name: name})
		}
		suite := &all.Suites[len(all.Suites)-1]
		one := junitCase{Name: f.ID + " " + v.place(f), Class: f.ID, File: name, Line: f.Line}
		if f.Severity == Info {
			one.Out = f.sentence()
		} else {
			one.Failure = &junitFailure{string(f.Severity), f.Text, fmt.Sprintf("%s: %s", v.place(f), f.sentence())}
			suite.Failures++
			all.Failures++
		}
		suite.Cases = append(suite.Cases, one)
		suite.Tests++
		all.Tests++
	}
	if all.Tests == 0 {
		all.Tests = 1
		all.Suites = []junitSuite{{Name: v.file(Finding{}), Tests: 1, Cases: []junitCase{{Name: "no findings", Class: "check"}}}}
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	encoder := xml.NewEncoder(w)
	encoder.Indent("", "  ")
	if err := encoder.Encode(all); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}
